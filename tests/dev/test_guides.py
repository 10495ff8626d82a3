"""The guides' commands work with a running `wxauth-desk dev`. They run in the order in which a reader needs them."""

import asyncio
import json
import os
import re
import runpy
import secrets
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from tests.conftest import NOWHERE, SETTINGS
from tests.dev.running import Dev, clone_in, running_dev
from tests.docs import ROOT, block, guide
from tests.forked import stand_in
from tests.processes import Running, environment, free_port, is_served, until
from tests.programs import needs, needs_node, output_of
from tests.world import bearer
from wxauth.settings.loading import settings_from
from wxauth.settings.settings import Settings
from wxauth_desk.wechat import APP_KEYS, APPS
from wxauth_desk.wechat.controls import LATER_APP, MOBILE_APP
from wxauth_desk.wechat.people import openid_of
from wxauth_guard import BearerGuard, Principal
from wxauth_guard.errors import InsufficientScope
from wxauth_guard.testing import TestIssuer

pytestmark = pytest.mark.process

APP = APPS[0]["app_id"]
SHOWN_USER = "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"
PRELUDE = """\
curl() { command curl --fail-with-body --silent --show-error "$@"; }
wxauth() {
    "$COMMAND" "$@" >said || return
    cat said
    secret="$(sed -n 's/^client_secret *//p' said)"
    [ -z "$secret" ] || SECRET="$secret" CLIENT_SECRET="$secret" CLIENT_ID="$3"
    [ -z "$secret" ] || echo "$secret" >secret
}
[ ! -e secret ] || CLIENT_SECRET="$(cat secret)"
"""
"""Shell functions that do what a reader does. They notice failures, and keep the secret that a command has printed."""


@dataclass
class Reader:
    """A reader who types the commands of the guides."""

    dev: Dev
    folder: Path
    known: dict[str, str] = field(default_factory=dict)
    """Shell variables that the guides leave to their readers."""

    @property
    def issuer(self) -> tuple[str, str]:
        """Return the issuer that the guides show, and the issuer of this test."""
        return "http://127.0.0.1:8000", self.dev.url

    def types(self, page: str, words: str, **instead: str) -> str:
        """Run the code block of this page with these replacements, and return what it prints."""
        return self.types_text(block(page, words), **instead)

    def types_text(self, text: str, *, typed: str = "", **instead: str) -> str:
        shown = {
            "http://127.0.0.1:8000": self.dev.url,
            "https://auth.example.com": self.dev.url,
            ".wxauth/wxauth": "wxauth",
            "wx1a2b3c4d5e6f7a8b": APP,
            SHOWN_USER: self.known["USER_ID"],
            '"openid": "…"': f'"openid": "{openid_of("alice", APP)}"',
        }
        for theirs, own in {**shown, **instead}.items():
            text = text.replace(theirs, own)
        return output_of("sh", "-eu", "-c", PRELUDE + text, cwd=self.folder, input=typed, env=environment(**self.known))

    def post(self, url: str, **body: Any) -> httpx.Response:
        return httpx.post(url, json=body, trust_env=False, verify=False)

    def log_in(self, person: str, **body: Any) -> Any:
        return self.post(f"{self.dev.url}/v1/login", code=person, **body).raise_for_status().json()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    needs("curl")
    folder = tmp_path_factory.mktemp("reader")
    with running_dev(folder, program=(clone_in(folder),)) as dev:
        forked = re.sub(
            "(?m)^exec .*", f'exec {shlex.quote(str(stand_in(folder)))} "$@"', (folder / ".wxauth/wxauth").read_text()
        )
        (folder / "command").write_text(forked)
        (folder / "command").chmod(0o700)
        reader = Reader(dev, folder, {"COMMAND": str(folder / "command"), "ISSUER": dev.url})
        whose = {"person": "alice", "phone": "13800138000"}
        phone_code = reader.post(f"{dev.wechat_url}/phone-codes", **whose).json()["code"]
        root, alice = reader.log_in("root", nickname="Root"), reader.log_in("alice", phone_code=phone_code)
        (folder / "ids.txt").write_text(reader.log_in("bob")["user"]["id"] + "\n")
        reader.known |= {"USER_ID": root["user"]["id"], "TOKEN": root["access_token"], "USER_AGENT": "Mozilla/5.0"}
        reader.known["WECHAT_URL"] = dev.wechat_url
        reader.known["REQUEST"] = reader.post(f"{dev.url}/v1/login", code="0-nobody").headers["x-request-id"]
        assert "roles: admin" in reader.types("docs/manage/console.md", "users grant", 小明="Root")
        reader.known["USER_ID"] = alice["user"]["id"]
        yield reader


CONSOLE, EVENTS, WECHAT, OTHERS = (
    str(guide(name).relative_to(ROOT)) for name in ("console", "events", "wechat", "other-back-ends")
)
SHOP = {
    '{"tier": "gold", "trial": null}': block("docs/manage/attributes.md", '"city"').strip(),
    "add crm": "add map",
    "crm:": "map:",
}
UNCHECKED = {"wxauth apps add": "echo secret | wxauth apps add --no-check", "add shop": "add bookshop"}
OLD_LOGIN = {"'http://127.0.0.1:8001": '"$WECHAT_URL"\''}
COPIED = {"~/my": "my", "cp cl": f"mkdir $MINIPROGRAM; cp {ROOT}/cl", " clients/": f" {ROOT}/clients/"}
UNKNOWN = {"curl": "wxauth clients add radio --device; ! curl", "$DEVICE_CODE": "of-nobody"}
REFUSED = {"0f8fad5bd9cb469fa16570867728950e": "$REQUEST"}
WHERE = {
    f"https://{name}.example.com/webhooks/wxauth": "$WECHAT_URL/webhook" for name in ("orders", "members", "linker")
}


@pytest.mark.parametrize(
    ("page", "words", "instead", "printed"),
    [
        ("docs/reference/http.md", "TOKEN=$(curl", {}, f'"openid":"{openid_of("alice", APP)}"'),
        ("docs/manage/clients.md", "clients add ledger", {}, "client_id +ledger"),
        ("docs/manage/attributes.md", "clients add crm", {}, '"attributes":{"tier":"gold"}'),
        ("docs/manage/attributes.md", "clients add crm", SHOP, '"vip":true'),
        (WECHAT, "/signatures", {"curl": "wxauth clients add pays --scope sign; curl"}, '"signature"'),
        (CONSOLE, "wxauth admin link", {}, "/admin/#link="),
        (CONSOLE, "q=138 0013", {}, '"phone":"[+]8613800138000"'),
        (CONSOLE, "ids.txt", {"2026-11-27": "2099-11-27"}, "disabled"),
        (CONSOLE, "users sign-out", {}, "signed out"),
        (EVENTS, "clients add ledger", {}, '"type":"user.created"'),
        (EVENTS, "clients add orders", {}, '"items":.{"id":"{alice}"'),
        (EVENTS, "clients add risk", {"2026-12": "2099-12"}, "risk"),
        (EVENTS, "webhooks add", WHERE, "204"),
        ("docs/start/moving-in.md", "clients add members", WHERE, "client_id +members"),
        ("docs/start/moving-in.md", "sns/jscode2session", OLD_LOGIN, openid_of("alice", APP)),
        ("docs/start/moving-from.md", "clients add linker", WHERE, "client_id +linker"),
        (WECHAT, "a1/access-token", {"curl": "wxauth clients add calls --scope access_token; curl"}, '"access_token"'),
        ("docs/build/websites.md", "--scope phone", {"add shop": "add store"}, "client_id +store"),
        ("docs/build/website-sessions.md", "shop --backchannel-logout-uri", {"set shop": "set store"}, "store"),
        ("docs/build/website-codes.md", "clients add tv", {"CLIENT_SECRET=...": "x=1"}, '"user_code"'),
        ("docs/build/other-back-ends.md", "clients add supabase", {}, "supabase"),
        ("docs/build/mini-program.md", "cp clients", COPIED, ""),
        ("docs/build/website-codes.md", "device_code", UNKNOWN, "invalid_grant"),
        ("docs/build/siblings-proxies.md", "clients add gateway", {}, "gateway"),
        ("docs/build/siblings-proxies.md", "/v1/introspect", {"CLIENT_SECRET=what-was-shown": ""}, '"active":true'),
        ("docs/manage/doors.md", "--kind official_account", UNCHECKED, "bookshop"),
        (CONSOLE, "v1/admin/refusals", REFUSED, "invalid_code"),
        ("docs/manage/keys.md", "secret new", {"forget": "forget --yes"}, ""),
    ],
)
def test_the_commands_shown_can_be_typed(
    reader: Reader, page: str, words: str, instead: dict[str, str], printed: str
) -> None:
    printed = printed.replace("{alice}", reader.known["USER_ID"])
    output = reader.types(page, words, **instead)
    assert re.search(printed, output.replace(", ", ",").replace('": ', '":')), output


def test_the_app_that_doors_adds_lets_people_in(reader: Reader) -> None:
    theirs = {"wx2b3c4d5e6f7a8b9c": MOBILE_APP["app_id"]}
    add, *change = block("docs/manage/doors.md", "apps add wx2b").splitlines(keepends=True)
    reader.types_text(add, typed=MOBILE_APP["app_secret"], **theirs)
    until(
        lambda: reader.post(f"{reader.dev.url}/v1/login", code="carol", app_id=MOBILE_APP["app_id"]).status_code == 200
    )
    assert "removed" in reader.types_text("".join(change), **theirs)


def test_a_websites_token_is_made_to_see_a_service_reject_it(reader: Reader) -> None:
    script = f"website_token.py --issuer {reader.dev.url}"
    *_, token = reader.types(
        "docs/build/websites.md", "website_token.py", **{"website_token.py": script, "python3 ": f"python3 {ROOT}/"}
    ).split()
    with pytest.raises(InsufficientScope):
        BearerGuard(issuer=reader.dev.url).verify_sync(token)


def test_an_identity_is_taken_out_of_a_user_and_a_stolen_key_withdrawn(reader: Reader) -> None:
    dave, eve = reader.log_in("dave")["user"], reader.log_in("eve")["user"]
    reader.types_text(f"wxauth users merge --yes {dave['id']} {eve['id']}")
    theirs = {"USER_ID": eve["id"], "oGZUI0egBJY1zhBYw2KhdUfwVJJE": dave["openid"], "split": "split --yes"}
    printed = reader.types("docs/manage/merging.md", "users split", **theirs)
    [taken] = [line for line in printed.splitlines() if "new_user" in line]
    assert dave["openid"] in taken
    kid = reader.types_text("wxauth keys list").splitlines()[1].split()[0]
    reader.types("docs/manage/keys.md", "keys withdraw", KID=kid)
    keys = f"{reader.dev.url}/.well-known/jwks.json"
    until(lambda: kid not in httpx.get(keys, trust_env=False, verify=False).text)


def test_people_move_in_from_a_file_and_to_another_company(reader: Reader) -> None:
    needs("jq")
    page = "docs/start/moving-in.md"
    line = json.loads(block("docs/start/import-file.md", '"app_id": "wx1a2b3c4d5e6f7a8b"'))
    openid, new = openid_of("frank", APP), openid_of("frank", APPS[1]["app_id"])
    (reader.folder / "users.jsonl").write_text(json.dumps({**line, "app_id": APP, "openid": openid}))
    assert "created: 1" in reader.types(page, "import users.jsonl --dry-run").splitlines()[1]
    assert "unchanged: 1" in reader.types(page, ".wxauth/wxauth users import")
    reader.types_text("wxauth clients add shop-db --scope users")
    assert '"external_id":"10023"' in reader.types(page, "external_ids", **{'"$CLIENT_ID': '"shop-db'})
    (reader.folder / "openids.json").write_text(json.dumps({openid: new}))
    move = {"wxformer": APP, "wxnew": APPS[1]["app_id"], "users.jsonl": "all.jsonl"}
    assert "created: 0, updated: 1" in reader.types(page, "openids.json", **move)
    there = reader.log_in("frank", app_id=APPS[1]["app_id"])
    assert (there["user"]["external_id"], there["is_new_user"]) == ("10023", False)


def test_the_addresses_of_a_user_are_found_in_the_log(reader: Reader) -> None:
    needs("jq")
    line = block("docs/run/monitoring.md", '"logged_in"').replace('"event"', '"ip":"203.0.113.9","event"')
    (reader.folder / "wxauth.log").write_text(line)
    assert "203.0.113.9\tlogged_in\t" in reader.types(
        "docs/manage/privacy.md", "wxauth.log", **{reader.known["USER_ID"]: SHOWN_USER}
    )


def test_users_who_have_been_away_are_erased_unless_they_return(reader: Reader) -> None:
    needs("jq")
    page = "docs/manage/privacy.md"
    people: dict[str, dict[str, object]] = {
        "gone": {},
        "seen the day before": {"last_seen_at": "2025-11-30T23:59:59Z"},
        "seen": {"last_seen_at": "2025-12-01T00:00:00Z"},
        "banned": {"status": "disabled"},
        "helper": {"roles": ["support"]},
        "erin": {"last_login_at": "2024-02-02T00:00:00Z", "phone": "+8613900139001"},
    }
    since = {"app_id": APP, "created_at": "2024-01-01T00:00:00Z"}
    lines = [{**since, "nickname": name, "openid": openid_of(name, APP), **given} for name, given in people.items()]
    (reader.folder / "away.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "created: 6" in reader.types_text("wxauth users import away.jsonl --allow-admin")

    def left() -> set[str]:
        listed = json.loads(reader.types_text("wxauth users list --limit 200 --json"))["items"]
        return {user["nickname"] for user in listed} & people.keys()

    reader.types(page, "cat >away.sh", **{"--limit 200": "--limit 2"})
    told = (reader.folder / "told.tsv").read_text().splitlines()
    assert sorted(line.split("\t")[1] for line in told) == ["", "", "+8613900139001"]
    assert left() == people.keys(), "nobody is erased before"
    reader.log_in("erin")
    assert reader.types(page, "still-away.txt").count("erased") == 2
    assert left() == {"seen", "banned", "helper", "erin"}


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("docs/manage/privacy.md", "WXAUTH_CONSENTS"),
        ("docs/manage/privacy.md", "WXAUTH_EVENTS_KEPT_DAYS"),
        ("docs/build/real-name.md", "WXAUTH_CLAIMS"),
        ("docs/manage/sign-up-hook.md", "WXAUTH_SIGN_UP_HOOK_URL"),
    ],
)
def test_the_settings_shown_are_valid(page: str, words: str) -> None:
    printed = output_of("sh", "-euac", f"{block(page, words)}\nenv")
    given = dict(re.findall(r"(?m)^WXAUTH_(\w+)=(.*)$", printed))
    settings = settings_from(
        Settings, **{**SETTINGS, "database_url": NOWHERE, **{k.lower(): v for k, v in given.items()}}
    )
    assert given
    assert {name.lower() for name in given} <= settings.model_fields_set


@pytest.mark.parametrize("language", ["", ".zh-CN"])
def test_a_hook_can_ask_wechat_for_the_risk(reader: Reader, language: str) -> None:
    name = "hook" + language.replace(".", "-").lower()
    made = json.loads(reader.types_text(f"wxauth clients add {name} --scope access_token --json"))
    names: dict[str, Any] = {"httpx": httpx, "Any": Any, "ISSUER": reader.dev.url, "WECHAT": reader.dev.wechat_url}
    names |= {"CLIENT_ID": made["client_id"], "CLIENT_SECRET": made["client_secret"]}
    exec(block(guide("sign-up-hook", language), "risk_rank"), names)
    reader.log_in("risky-3")
    asked = {"app_id": APP, "kind": "mini_program", "openid": openid_of("risky-3", APP), "client_ip": "203.0.113.7"}
    unknown = {"openid": "o-nobody"}, {"client_ip": None}, {"kind": "website"}, {"app_id": "wx0000000000000000"}
    ranks = [asyncio.run(names["risk_rank"](asked | changed)) for changed in ({}, *unknown)]
    assert ranks == [3, 0, 0, 0, 0]


def test_a_shops_push_settings_are_asked_for(reader: Reader) -> None:
    reader.types_text(f"wxauth apps add {LATER_APP['app_id']}", typed=LATER_APP["app_secret"])
    typed = "{push_token}\n{push_aes_key}\n".format(**APPS[1])
    theirs = {"wx…": LATER_APP["app_id"], "https://shop.example.com/wechat": f"{reader.dev.wechat_url}/webhook"}
    assert "changed" in reader.types("docs/build/payments.md", "apps set wx…", typed=typed, **theirs)
    theirs = {"wx1a2b3c4d5e6f7a8b": LATER_APP["app_id"]}
    theirs["https://moderation.example.com/wechat"] = f"{reader.dev.wechat_url}/webhook"
    assert "client_id" in reader.types("docs/build/wechat.md", "clients add moderation", **theirs)


OF_FASTAPI = [("docs/build/siblings.md", "curl -i -X DELETE")]
OF_EXPRESS = [("examples/express/README.md", words) for words in ("TOKEN=$(curl", "AAAAA")]


@pytest.mark.node
@pytest.mark.parametrize(
    ("page", "start", "tries", "statuses"),
    [
        ("docs/build/siblings.md", "uvicorn app:app", OF_FASTAPI, "200 401 403"),
        ("examples/express/README.md", "npm start", OF_EXPRESS, "200 401 401 403"),
        ("clients/node/README.md", "node server.js", OF_FASTAPI, "200 401 403"),
    ],
)
def test_a_service_that_is_started_as_shown_is_guarded(
    reader: Reader, page: str, start: str, tries: list[tuple[str, str]], statuses: str
) -> None:
    needs_node(ROOT / "examples/express")
    port, folder = str(free_port()), reader.folder
    (folder / "app.py").write_text(block("docs/build/siblings.md", "async def erase").replace(*reader.issuer))
    (folder / "app.js").write_text(
        block("clients/node/README.md", "express()\n\napp.get('/orders'").replace(*reader.issuer)
    )
    (folder / "server.js").write_text(block("clients/node/README.md", "?? 8003"))
    (folder / "package.json").write_text('{"type": "module"}')
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(ROOT / "examples/express/node_modules")
    command = re.sub("80(?:02|03|10)", port, block(page, start))
    with Running("sh", "-c", command, cwd=folder, env={"WXAUTH_ISSUER": reader.dev.url, "PORT": port}) as service:
        until(lambda: is_served(int(port)) or service.process.poll() is not None)
        text = "".join(block(*each) for each in tries).replace("curl -i", "command curl -si")
        printed = reader.types_text(re.sub("127.0.0.1:80(?:02|03|10)", f"127.0.0.1:{port}", text))
    assert re.findall(r"HTTP/1.1 (\d+) ", printed) == statuses.split(), printed + service.output


def test_a_face_that_wechat_recognises_becomes_an_age_band_and_nothing_else(reader: Reader) -> None:
    reader.types("docs/build/real-name.md", "clients add real-name")
    port, wechat_url = str(free_port()), reader.dev.wechat_url
    given = {"SECRET": (reader.folder / "secret").read_text().strip(), "WXAUTH_ISSUER": reader.dev.url}
    given |= {"WECHAT_BASE_URL": wechat_url, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = block("docs/build/real-name.md", "uvicorn").replace("8008", port).replace("wx1a2b3c4d5e6f7a8b", APP)
    with Running("sh", "-c", command, cwd=reader.folder, env=given) as service:
        until(lambda: is_served(int(port)) or service.process.poll() is not None)
        for years, band in ((10, "0-13"), (15, "14-17"), (30, "18+")):
            ivan = reader.log_in(f"ivan{years}")
            ask = partial(httpx.post, headers=bearer(ivan), trust_env=False)
            url, number = f"http://127.0.0.1:{port}/real-name", f"110101{datetime.now(UTC).year - years}0101{years:03}X"
            assert ask(f"{url}/result").status_code == 409
            begun = ask(url, json={"name": "王伊凡", "number": number})
            assert begun.status_code == 200, begun.text + service.output
            assert ask(f"{url}/result").status_code == 409, "no face yet"
            reader.post(f"{wechat_url}/faces", verify_id=begun.json()["verifyId"]).raise_for_status()
            assert ask(f"{url}/result").json()["age_band"] == band, service.output
            assert f'"age_band":"{band}"' in reader.types_text(f"wxauth users show {ivan['user']['id']} --json")
            shown = httpx.get(f"{wechat_url}/desk/wires/0", trust_env=False).text
            assert number not in shown + service.output


async def test_the_token_of_a_website_or_an_agent_asks_for_no_real_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WXAUTH_CLIENT", "real-name:secret")
    service, issuer = runpy.run_path(str(ROOT / "examples/real-name/real_name.py")), TestIssuer()
    transport = httpx.ASGITransport(service["app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://real-name.test") as client:
        with issuer.trusted_by(service["guard"]):
            for scope in ("openid", ""):
                theirs = issuer.headers(scope=scope)
                begun = await client.post("/real-name", headers=theirs, json={"name": "王伊凡", "number": "x"})
                assert begun.status_code == 403
                assert (await client.post("/real-name/result", headers=theirs)).status_code == 403
            assert (await client.post("/real-name/result", headers=issuer.headers())).status_code == 409


def test_a_payment_that_php_signs_is_taken(reader: Reader) -> None:
    needs("php")
    reader.log_in("grace")
    reader.types_text("wxauth clients add php-shop --scope sign")
    given = {
        "order": json.loads(block("docs/build/payments.md", '"offerId"')),
        "clientId": "php-shop",
        "clientSecret": (reader.folder / "secret").read_text().strip(),
        "openid": openid_of("grace", APP),
        "issuer": reader.dev.url,
        "appId": APP,
        "appKey": APP_KEYS[0],
    }
    code = f"extract(json_decode($argv[1], true)); {block('docs/build/payments.md', 'stream_context_create')}"
    code += "echo json_encode(['signData' => $data, 'paySig' => $paySig, 'signature' => $signature]);"
    signed = json.loads(output_of(needs("php"), "-r", code, json.dumps(given)))
    paid = reader.post(f"{reader.dev.wechat_url}/pay", person="grace", app_id=APP, **signed).json()
    assert paid["errCode"] == 0, paid


@pytest.mark.node
@pytest.mark.parametrize("language", ["", ".zh-CN"])
def test_a_games_coins_are_seen_to_be_paid(reader: Reader, language: str) -> None:
    page, name = str(guide("mini-games", language)), "game" + language.replace(".", "-").lower()
    openid = reader.log_in(f"player{len(language)}")["user"]["openid"]
    (coins := reader.folder / "coins.mjs").write_text(
        block(page, "createHmac").replace(*reader.issuer).replace("http://127.0.0.1:8001", reader.dev.wechat_url)
    )
    here = {
        "add game": f"add {name}",
        "ID=game CLIENT_SECRET=…": f"ID={name} CLIENT_SECRET",
        "node ": f"{needs('node')} ",
    }
    printed = reader.types(page, "buy.mjs", **{"$OPENID": openid}, **here)
    assert re.findall(r"balance: (\d+)|errcode: (9\d+)", printed) == [("100", ""), ("40", ""), ("", "90013")], printed
    coins.unlink()


def test_a_service_bans_a_cheat_and_a_phone_gets_an_id_token(reader: Reader) -> None:
    heidi = reader.log_in("heidi")
    head, body = block("docs/build/other-back-ends.md", "/v1/me/id-token").split("\n\n")
    method, path = head.splitlines()[0].split()
    reader.types_text("wxauth clients add phones --public --phone-id-token")
    code = reader.post(f"{reader.dev.wechat_url}/codes", person="heidi").json()["code"]
    asked = {**json.loads(body), "client_id": "phones", "login_code": code}
    answer = httpx.request(method, f"{reader.dev.url}{path}", json=asked, headers=bearer(heidi), trust_env=False)
    assert answer.status_code == 200, answer.text

    reader.types_text("wxauth clients add fraud --scope moderate")
    around: dict[str, Any] = {
        "CLIENT_SECRET": (reader.folder / "secret").read_text().strip(),
        "user_id": heidi["user"]["id"],
    }
    exec(
        block("docs/manage/sign-up-hook.md", "/ban"),
        {"httpx": httpx, "ISSUER": reader.dev.url, "CLIENT_ID": "fraud", **around},
    )
    assert reader.post(f"{reader.dev.url}/v1/login", code="heidi").json()["code"] == "account_disabled"


def chat_server(request: httpx.Request) -> httpx.Response:
    """Answer as an OpenIM server that already has this user."""
    answers: dict[str, Any] = {
        "/auth/get_admin_token": {"data": {"token": "an administrator's"}},
        "/user/user_register": {"errCode": 1102},
        "/auth/get_user_token": {"data": {"token": "the user's"}},
    }
    is_first = request.url.path == "/auth/get_admin_token"
    assert request.headers["token"] == ("" if is_first else "an administrator's")
    return httpx.Response(200, json=answers[request.url.path])


async def orders_of(customers: set[str]) -> list[str]:
    return sorted(customers)


@pytest.mark.parametrize(
    ("page", "words", "asked", "answer"),
    [
        (OTHERS, "TLSSigAPIv2", "POST /chat-token", {"userID": "{hex}", "userSig": "{hex} 86400"}),
        (OTHERS, "user_register", "POST /chat-token", {"userID": "{hex}", "token": "the user's"}),
        ("docs/start/moving-in.md", "user.external_id", "GET /orders", ["{id}", "10023"]),
    ],
)
async def test_a_route_shown_for_a_back_end_answers(page: str, words: str, asked: str, answer: Any) -> None:
    issuer = TestIssuer()
    token = issuer.token(claims={"external_id": "10023"})
    user = issuer.guard().verify_sync(token)
    openim = httpx.AsyncClient(transport=httpx.MockTransport(chat_server), base_url="http://openim")
    signer = SimpleNamespace(gen_sig=lambda name, seconds: f"{name} {seconds}")
    around: dict[str, Any] = {
        "app": FastAPI(),
        "guard": issuer.guard(),
        "openim": openim,
        "orders_of": orders_of,
        "secrets": secrets,
    }
    around |= {"Annotated": Annotated, "Any": Any, "Depends": Depends, "Principal": Principal}
    around |= {"TLSSigAPIv2": lambda *_: signer, "SDK_APP_ID": 1, "SECRET_KEY": "key", "SECRET": "secret"}
    exec(block(page, words), around)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(around["app"]), base_url="http://shop.test") as client:
        given = await client.request(*asked.split(), headers=bearer(token))
    expected = json.dumps(answer).replace("{hex}", user.id.hex).replace("{id}", str(user.id))
    assert given.json() == json.loads(expected)
