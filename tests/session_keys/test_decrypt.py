"""`POST /v1/me/decrypt` decrypts WeChat's encrypted data as the guides describe."""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import pytest
from pydantic import TypeAdapter

from tests.fakes import Secrets
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import Body, Stage, bearer
from wxauth.session_keys.queries import KeysInSession
from wxauth.session_keys.routes import DecryptedAnswer
from wxauth_desk.wechat import APPS
from wxauth_desk.wechat.controls import SealRequest

pytestmark = pytest.mark.usefixtures("simulated")

APP_ID, OTHER_APP_ID = (app["app_id"] for app in APPS)
STEPS = {"stepInfoList": [{"timestamp": 1795104000, "step": 8848}], "note": "小明 🏃"}


@dataclass
class DataPhone:
    """A phone on which a mini-program gets data that WeChat has encrypted."""

    stage: Stage
    person: str = "alice"
    app_id: str = APP_ID
    tokens: Body = field(default_factory=dict)

    async def log_in(self) -> Self:
        self.tokens = await self.stage.login(self.person, app_id=self.app_id)
        return self

    async def another(self, person: str = "alice", *, app_id: str = APP_ID) -> "DataPhone":
        return await DataPhone(self.stage, person, app_id).log_in()

    def tap(self, **data: Any) -> dict[str, str]:
        """Return encrypted data in the form that WeChat gives to the mini-program."""
        sealed = self.stage.simulator.seal(SealRequest(person=self.person, app_id=self.app_id, data=data or STEPS))
        return {name: sealed[name] for name in ("encryptedData", "iv")}

    async def decrypt(self, body: object, **headers: str) -> httpx.Response:
        headers = {**bearer(self.tokens), **headers}
        return await self.stage.client.post("/v1/me/decrypt", json=body, headers=headers)


@pytest.fixture
async def phone(stage: Stage) -> DataPhone:
    return await DataPhone(stage).log_in()


@pytest.mark.parametrize("name", ["encryptedData", "encrypted_data"])
async def test_data_encrypted_by_wechat_is_decrypted(phone: DataPhone, name: str) -> None:
    tapped = phone.tap()
    answer = await phone.decrypt({name: tapped["encryptedData"], "iv": tapped["iv"]})
    assert answer.status_code == 200
    assert answer.json() == {
        "data": {**STEPS, "watermark": {"appid": APP_ID, "timestamp": int(phone.stage.clock().timestamp())}}
    }
    assert answer.headers["cache-control"] == "no-store"
    TypeAdapter(DecryptedAnswer).validate_python(answer.json())


async def test_decrypted_data_is_not_logged(phone: DataPhone, secrets: Secrets) -> None:
    name = secrets.add_unlogged("Person-of-the-log-test")
    opened, refused = phone.tap(nickName=name), phone.tap(nickName=name, watermark={"appid": "x", "timestamp": 1})
    assert [(await phone.decrypt(tapped)).status_code for tapped in (opened, refused)] == [200, 422]
    lines = json.dumps(phone.stage.log_lines())
    assert "data_decrypted" in lines
    assert not any(text in lines for text in (name, *opened.values(), *refused.values()))


async def test_base64_that_was_bent_on_its_way_is_opened_all_the_same(phone: DataPhone) -> None:
    for bent in (
        lambda text: text.replace("+", " "),
        lambda text: text.replace("+", "-").replace("/", "_").rstrip("="),
        lambda text: "".join(f"{text[start : start + 64]}\r\n" for start in range(0, len(text), 64)),
    ):
        tapped = {name: bent(text) for name, text in _with_plus_and_slash(phone).items()}
        assert (await phone.decrypt(tapped)).json()["data"]["note"] == STEPS["note"]


def _with_plus_and_slash(phone: DataPhone) -> dict[str, str]:
    while True:
        tapped = phone.tap()
        if all(character in tapped[name] for character in "+/" for name in tapped):
            return tapped


# The choice of the key.


async def test_data_encrypted_before_or_after_a_login_on_another_phone_decrypts(phone: DataPhone) -> None:
    before, phones = phone.tap(), [phone, await phone.another()]
    assert (await phone.decrypt(before)).status_code == 200
    after = phone.tap()
    assert [(await each.decrypt(after)).status_code for each in phones] == [200, 200]


async def test_a_session_whose_own_key_is_gone_uses_the_newest_of_its_app(phone: DataPhone) -> None:
    await phone.another()
    await phone.another(app_id=OTHER_APP_ID)
    await phone.stage.rows.execute("UPDATE sessions SET session_key = NULL WHERE id = $1", phone.tokens["session_id"])
    assert (await phone.decrypt(phone.tap())).status_code == 200


async def test_after_the_newest_session_has_ended_its_key_opens_nothing_any_more(phone: DataPhone) -> None:
    other = await phone.another()
    tapped = phone.tap()
    assert (await phone.decrypt(tapped)).status_code == 200
    await phone.stage.client.post("/v1/logout", headers=bearer(other.tokens))
    problem_of(await phone.decrypt(tapped), "session_key_expired", 409)


async def test_a_replaced_key_is_answered_with_the_remedy_which_works(phone: DataPhone) -> None:
    query = {"appid": APP_ID, "secret": APPS[0]["app_secret"], "js_code": "alice", "grant_type": "authorization_code"}
    call, _ = phone.stage.simulator.receive("code2session", query, b"")
    phone.stage.simulator.answer(call)  # only WeChat knows the new key, as if its response to wxauth had been lost
    refused = await phone.decrypt(phone.tap(), **{"Accept-Language": "zh_CN"})
    problem = problem_of(refused, "session_key_expired", 409)
    assert problem["title"] == "微信会话已过期，请重新登录后再点一次。"
    assert "log in again" in problem["detail"]
    assert "tap again" in problem["detail"]
    await phone.log_in()
    assert (await phone.decrypt(phone.tap())).status_code == 200


@pytest.mark.parametrize(("person", "app_id"), [("bob", APP_ID), ("alice", OTHER_APP_ID)])
async def test_data_of_another_person_or_app_does_not_decrypt(phone: DataPhone, person: str, app_id: str) -> None:
    other = await phone.another(person, app_id=app_id)
    problem_of(await phone.decrypt(other.tap()), "session_key_expired", 409)


async def test_a_stored_key_under_a_lost_secret_key_is_reported_to_the_operator_and_none_is_not(
    phone: DataPhone,
) -> None:
    for stored in ("decode('01deadbeef', 'hex') || session_key", "NULL"):
        await phone.stage.rows.execute(f"UPDATE sessions SET session_key = {stored}")
        problem_of(await phone.decrypt(phone.tap()), "session_key_expired", 409)
        (line,) = phone.stage.logged("session_key_not_unsealed")
        assert "WXAUTH_SECRET_KEY_PREVIOUS" in str(line["what_to_change"])


# Rejected requests.


@swept(
    ("watermark", "message"),
    [
        ({"appid": OTHER_APP_ID}, "another app"),
        ({"age": 86401}, "a day old"),
        ({"age": -301}, "future"),
        ({"timestamp": None}, "no watermark"),
    ],
)
async def test_a_watermark_of_another_app_or_another_day_is_refused(
    phone: DataPhone, watermark: dict[str, Any], message: str
) -> None:
    timestamp = int(phone.stage.clock().timestamp()) - watermark.pop("age", 0)
    tapped = phone.tap(watermark={"appid": APP_ID, "timestamp": timestamp, **watermark})
    problem = problem_of(await phone.decrypt(tapped), "invalid_request", 422)
    (error,) = problem["errors"]
    assert error["field"] == "encrypted_data"
    assert message in error["message"]
    assert OTHER_APP_ID not in json.dumps(problem)


async def test_data_opens_for_a_day(phone: DataPhone) -> None:
    tapped = phone.tap(watermark={"appid": APP_ID, "timestamp": int(phone.stage.clock().timestamp()) - 86400})
    assert (await phone.decrypt(tapped)).status_code == 200


@swept(
    ("field", "value"),
    [
        ("encryptedData", "not base64!"),
        ("encryptedData", "钥匙"),
        ("encryptedData", ""),
        ("encryptedData", b64encode(bytes(15)).decode()),
        ("encryptedData", b64encode(bytes(33)).decode()),
        ("encryptedData", b64encode(bytes(24 * 1024 + 48)).decode()),
        ("encryptedData", None),
        ("iv", "not base64!"),
        ("iv", ""),
        ("iv", b64encode(bytes(15)).decode()),
        ("iv", b64encode(bytes(32)).decode()),
    ],
)
async def test_a_malformed_field_is_named_without_its_value(phone: DataPhone, field: str, value: object) -> None:
    answer = await phone.decrypt({**phone.tap(), field: value})
    (error,) = problem_of(answer, "invalid_request", 422)["errors"]
    assert error["field"] == field
    assert not isinstance(value, str) or value == "" or value not in answer.text


async def test_altered_or_truncated_data_does_not_decrypt_and_gets_no_explanation(phone: DataPhone) -> None:
    tapped = phone.tap()
    encrypted = b64decode(tapped["encryptedData"])
    altered = [encrypted[:-16], encrypted[:-1] + bytes([encrypted[-1] ^ 1]), encrypted[:16] + bytes(32), encrypted[16:]]
    details = set()
    for data in altered:
        answer = await phone.decrypt({**tapped, "encryptedData": b64encode(data).decode()})
        details.add(problem_of(answer, "session_key_expired", 409)["detail"])
    assert len(details) == 1


def test_the_repr_of_a_sessions_keys_hides_them() -> None:
    assert "sealed" not in repr(KeysInSession("wx1", "oAlice", newest=b"sealed", own=b"sealed"))
