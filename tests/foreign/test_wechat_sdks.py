"""Foreign SDKs of WeChat work with the simulated WeChat and with the messages and signatures of wxauth."""

import json
import re
import subprocess
from base64 import b64encode
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from secrets import token_bytes
from typing import Any

import httpx
import pytest

from tests.docs import ROOT, block, code_blocks
from tests.foreign.conftest import Issuer
from tests.processes import environment, serving
from tests.programs import NODE_PATIENCE, lacks, needs, needs_relying_parties, output_of
from tests.world import Stage, add_client, bearer, body_of
from wxauth.core.database import Database
from wxauth_desk.wechat import ACCOUNT, APP_KEYS, APPS, create_simulator
from wxauth_desk.wechat.payments import PayRequest
from wxauth_desk.wechat.people import openid_of
from wxauth_desk.wechat.push import make_person_message, sign_push

SCRIPT = Path(__file__).with_name("wechat_sdks.py")
FIRST, SEALED = APPS
PAGES = {**ACCOUNT, "js_hosts": ["shop.example.com"]}
KEYS = {"token": SEALED["push_token"], "aes_key": SEALED["push_aes_key"], "app_id": SEALED["app_id"]}
BOTH = pytest.mark.parametrize("sdk", ["wechatpy", "werobot"])
pytestmark = [pytest.mark.process, pytest.mark.usefixtures("simulated"), pytest.mark.settings(apps=[*APPS, PAGES])]


def call(name: str, /, url: str = "-", **arguments: Any) -> Any:
    command = [needs_relying_parties(), str(SCRIPT), url]
    done = subprocess.run(command, input=json.dumps([name, arguments]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.no_database
def test_wechatpy_and_werobot_work_with_the_simulated_wechat() -> None:
    app_id, secret = FIRST["app_id"], FIRST["app_secret"]
    account = {"account_id": ACCOUNT["app_id"], "account_secret": ACCOUNT["app_secret"]}
    with serving(create_simulator()) as url:
        got = call("client", url, app_id=app_id, secret=secret, **account)
        robot = call("robot", url, app_id=app_id, secret=secret)
        sealing = {"person": "alice", "app_id": app_id, "data": {"nickName": "爱丽丝"}}
        sealed = httpx.post(f"{url}/encrypted-data", json=sealing).json()
    assert got["session"]["openid"] == openid_of("alice", app_id)
    assert (got["code"], len(got["ticket"]) > 32) == ("ffd8", True)
    known = openid_of("alice", ACCOUNT["app_id"])
    assert (got["granted"], got["renewed"], got["info"]["openid"]) == (known, known, known)
    assert (got["info"]["nickname"], got["info"]["unionid"]) == ("alice", got["session"]["unionid"])
    assert got["is_valid"]
    mistakes = {"unknown": 40066, "card": 40097, "wrong_code": 40029, "wrong_page": 41030, "wrong_secret": 40125}
    assert {name: got[name] for name in mistakes} == mistakes
    data = {"key": got["session"]["session_key"], "iv": sealed["iv"], "data": sealed["encryptedData"]}
    assert call("decrypted", app_id=app_id, **data)["nickName"] == "爱丽丝"
    assert len(robot["token"]) == 515
    assert "40066" in robot["error"]


README = ROOT / "desk/README.md"
AT = "http://127.0.0.1:8001"
"""The address in the README."""
SHOWN = [openid_of("alice", FIRST["app_id"]), "13800138000"]


@pytest.mark.no_database
def test_wechatpy_works_as_the_readme_shows() -> None:
    [program] = code_blocks(README, "python")
    with serving(create_simulator()) as url:
        assert output_of(needs_relying_parties(), "-c", program.replace(AT, url)).split() == SHOWN


@pytest.fixture(scope="module", params=["silenceper", "wxjava"])
def judge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A function that returns the output of an SDK in another language for these arguments."""
    folder, source = tmp_path_factory.mktemp(request.param), Path(__file__).with_name(request.param)
    if request.param == "silenceper":
        fetch = [needs("go"), "build", "-mod=readonly", "-o", f"{folder}/judge", "."]
        command = [f"{folder}/judge"]
    else:
        command = [needs("java"), "-cp", f"{folder}/*", str(source / "Judge.java")]
        copy = ["-q", "-B", "--strict-checksums", "dependency:copy-dependencies"]
        fetch = [needs("mvn"), *copy, f"-DoutputDirectory={folder}"]
    done = subprocess.run(fetch, cwd=source, capture_output=True, text=True, timeout=NODE_PATIENCE)
    if done.returncode:
        lacks(f"needs the packages of {request.param}: {done.stdout[:300]}{done.stderr[:300]} 未能下载依赖包")
    return partial(output_of, *command)


@pytest.mark.no_database
def test_an_sdk_in_another_language_works_with_the_simulated_wechat(judge: Callable[..., str]) -> None:
    with serving(create_simulator()) as url:
        apps = [value for app in (FIRST, ACCOUNT) for value in (app["app_id"], app["app_secret"])]
        told = json.loads(judge("ask", url, *apps))
    assert told.pop("link").startswith("https://wxaurl.cn/")
    assert told == {
        "openid": openid_of("alice", FIRST["app_id"]),
        "wrong_code": 40029,
        "number": "13800138000",
        "picture": True,
        "wrong_page": 41030,
        "suggest": "pass",
        "granted": openid_of("alice", ACCOUNT["app_id"]),
        "nickname": "alice",
        "signature": 40,
    }


@pytest.mark.no_database
@pytest.mark.parametrize("judge", ["wxjava"], indirect=True)
def test_wxjava_works_as_the_readme_shows(judge: Any, tmp_path: Path) -> None:
    [program] = code_blocks(README, "java")
    *java, _ = judge.args
    with serving(create_simulator()) as url:
        (tmp_path / "Login.java").write_text(program.replace(AT, url))
        assert output_of(*java, str(tmp_path / "Login.java")).split() == SHOWN


@pytest.mark.no_database
@pytest.mark.parametrize("judge", ["wxjava"], indirect=True)
async def test_wxjava_asks_wxauth_for_the_access_token_as_the_guide_shows(
    judge: Any, issuer: Issuer, database_of_issuer: str, tmp_path: Path
) -> None:
    async with aclosing(Database(database_of_issuer)) as database:
        shop = await add_client(database, "wxjava", scopes=["access_token"], now=datetime.now(UTC))
    (tmp_path / "Asking.java").write_text(ASKING + code_blocks(ROOT / "docs/build/wechat.md", "java")[0])
    async with httpx.AsyncClient(base_url=issuer.url, trust_env=False) as client:
        token = body_of(await client.get(f"/v1/apps/{FIRST['app_id']}/access-token", auth=shop))["access_token"]
    *java, _ = judge.args
    asked = output_of(*java, str(tmp_path / "Asking.java"), issuer.url, FIRST["app_id"], *shop)
    assert asked.split() == [token, "401"]


EASYWECHAT = """<?php
namespace EasyWeChat\\Kernel\\Contracts {
    interface AccessToken { public function getToken(): string; public function toQuery(): array; }
    interface RefreshableAccessToken extends AccessToken { public function refresh(): string; }
}
namespace EasyWeChat\\MiniProgram\\Auth {
    // As much of versions 4 and 5 as uses the token, because Composer's registry is not reached here.
    abstract class BaseAccessToken
    {
        protected $app;
        public function __construct($app) { $this->app = $app; }
        public function getToken(bool $refresh = false): array { throw new \\LogicException('WeChat is asked'); }
        public function refresh() { $this->getToken(true); return $this; }
        protected function getQuery(): array { return ['access_token' => $this->getToken()['access_token']]; }
        public function query(): array { return $this->getQuery(); }
    }
    class AccessToken extends BaseAccessToken {}
}
namespace {
    set_error_handler(function () { throw new ErrorException('a warning'); });
    set_exception_handler(function ($met) { echo $met->getMessage(); exit(0); });
    CLASS_SHOWN
    USED
}
"""
USED = {
    "getToken(bool": "$token = new WxauthAccessToken(['config' => ['app_id' => $argv[1]]]); $token->refresh();"
    " echo $token->query()['access_token'];",
    "getToken(): string": "$token = new WxauthAccessToken($argv[1]);"
    " echo $token->toQuery()['access_token'] === $token->refresh() ? $token->getToken() : 'another';",
}


@pytest.mark.no_database
@pytest.mark.parametrize("version", USED)
async def test_easywechat_asks_wxauth_for_the_access_token_as_the_guide_shows(
    issuer: Issuer, database_of_issuer: str, tmp_path: Path, version: str
) -> None:
    async with aclosing(Database(database_of_issuer)) as database:
        name = f"easywechat-{list(USED).index(version)}"
        shop = await add_client(database, name, scopes=["access_token"], now=datetime.now(UTC))
    program = EASYWECHAT.replace("CLASS_SHOWN", block("docs/build/wechat.md", version)).replace("USED", USED[version])
    (tmp_path / "asking.php").write_text(program)
    async with httpx.AsyncClient(base_url=issuer.url, trust_env=False) as client:
        token = body_of(await client.get(f"/v1/apps/{FIRST['app_id']}/access-token", auth=shop))["access_token"]
    command = [needs("php"), str(tmp_path / "asking.php"), FIRST["app_id"]]
    asked = output_of(*command, env=environment(WXAUTH_ISSUER=issuer.url, WXAUTH_CLIENT=":".join(shop)))
    assert asked == token
    wrong = environment(WXAUTH_ISSUER=issuer.url, WXAUTH_CLIENT=f"{shop[0]}:wrong")
    assert output_of(*command, env=wrong) == "wxauth returned no WeChat access token: invalid_client"


ASKING = """
import cn.binarywang.wx.miniapp.api.impl.WxMaServiceImpl;
import cn.binarywang.wx.miniapp.config.impl.WxMaDefaultConfigImpl;
import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Scanner;
import me.chanjar.weixin.common.bean.WxAccessToken;
import me.chanjar.weixin.common.error.WxError;
import me.chanjar.weixin.common.error.WxErrorException;

class Asking {
    public static void main(String[] args) throws Exception {
        System.out.println(new WxauthMaService(args[0], args[1], args[2], args[3]).getAccessToken(false));
        try { new WxauthMaService(args[0], args[1], args[2], "wrong").getAccessToken(false); }
        catch (WxErrorException e) { System.out.println(e.getError().getErrorCode()); }
    }
}

"""


@BOTH
async def test_a_message_that_another_sdk_has_sealed_is_carried_out(stage: Stage, sdk: str) -> None:
    now = str(int(stage.clock().timestamp()))
    await withdraw(stage, lambda message: call("sealed", sdk=sdk, **KEYS, message=message, timestamp=now))


async def test_a_message_that_an_sdk_in_another_language_has_sealed_is_carried_out(
    stage: Stage, judge: Callable[..., str]
) -> None:
    stage.clock.now = datetime.now(UTC)  # WxJava uses the machine's clock
    await withdraw(stage, lambda message: judge("seal", *KEYS.values(), message))


async def withdraw(stage: Stage, seal: Callable[[str], str]) -> None:
    """Push a message, sealed by an SDK, in which Alice withdraws an authorization.

    wxauth must reject it with another signature, and carry it out with the right one.
    """
    alice = await stage.login(app_id=SEALED["app_id"], nickname="Alice")
    openid, now = alice["user"]["openid"], int(stage.clock().timestamp())
    fields = make_person_message(openid, "user_authorization_revoke", "6", app_id=KEYS["app_id"], now=now)
    body = seal(f"<xml>{''.join(f'<{name}>{value}</{name}>' for name, value in fields.items())}</xml>")
    sent = dict(re.findall(r"<(MsgSignature|TimeStamp|Nonce)>(?:<!\[CDATA\[)?([^]<]+)", body))
    how: Any = {"mode": "plain", "format": "xml", "timestamp": sent["TimeStamp"], "nonce": sent["Nonce"]}
    query, path = sign_push(SEALED, {}, **how).query, f"/v1/wechat/push/{SEALED['app_id']}"
    for signature, status in ((sent["MsgSignature"][::-1], 403), (sent["MsgSignature"], 200)):
        params = {**query, "msg_signature": signature}
        assert (await stage.client.post(path, params=params, content=body)).status_code == status
    assert (await stage.user(alice))["nickname"] is None


@BOTH
@pytest.mark.no_database
def test_a_message_of_the_simulator_is_opened_by_another_sdk(sdk: str) -> None:
    push = sign_push(SEALED, {"Event": "any"}, mode="aes", format="json", timestamp="1795161600", nonce="7")
    encrypted = json.loads(push.body)["Encrypt"]
    assert json.loads(call("opened", sdk=sdk, **KEYS, query={**push.query}, encrypted=encrypted)) == {"Event": "any"}


async def test_a_payment_is_taken_as_an_sdk_and_wxauth_sign_it(stage: Stage, judge: Callable[..., str]) -> None:
    shop = await add_client(stage.services.database, "shop", scopes=["sign"], now=stage.clock())
    openid = (await stage.login())["user"]["openid"]
    key = stage.simulator.payments.session_keys.current(openid)
    order = {"offerId": "1450000000", "buyQuantity": 1, "currencyType": "CNY", "productId": "月卡", "goodsPrice": 1800}
    data = json.dumps({**order, "outTradeNo": "o-20261124"}, ensure_ascii=False)
    signing = {"openid": openid, "data": data}
    signed = body_of(await stage.client.post(f"/v1/apps/{FIRST['app_id']}/signatures", json=signing, auth=shop))
    judged = json.loads(judge("sign", APP_KEYS[0], key, data))
    assert judged["signature"] == signed["signature"]
    payment = PayRequest.model_validate({"person": "alice", "app_id": FIRST["app_id"], "signData": data, **judged})
    assert stage.simulator.payments.pay(payment)[0] == 0


async def test_data_that_another_program_has_encrypted_is_decrypted(stage: Stage) -> None:
    alice = await stage.login()
    key = stage.simulator.payments.session_keys.current(alice["user"]["openid"])
    watermark = {"appid": FIRST["app_id"], "timestamp": int(stage.clock().timestamp())}
    data, iv = {"text": "茶🍵" * 400, "watermark": watermark}, b64encode(token_bytes(16)).decode()
    sealed = call("encrypted", key=key, iv=iv, data=json.dumps(data, ensure_ascii=False))
    given = {"encryptedData": sealed, "iv": iv}
    answer = await stage.client.post("/v1/me/decrypt", json=given, headers=bearer(alice))
    assert body_of(answer) == {"data": data}


@pytest.mark.parametrize("path", ["/", "/orders?id=1&name=茶", "/a#part"])
async def test_a_page_is_signed_as_wechatpy_signs_it(stage: Stage, path: str) -> None:
    shop = await add_client(stage.services.database, "shop", scopes=["js_sign"], now=stage.clock())
    url = f"https://shop.example.com{path}"
    signed = body_of(
        await stage.client.post(f"/v1/apps/{ACCOUNT['app_id']}/js-signatures", json={"url": url}, auth=shop)
    )
    ticket, _ = stage.simulator.js_tickets[ACCOUNT["app_id"]]
    given = {"nonce": signed["nonceStr"], "timestamp": str(signed["timestamp"]), "page": url.partition("#")[0]}
    assert call("page_signature", ticket=ticket, **given) == signed["signature"]
