"""Messages that WeChat pushes, and an inbox that sends them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, NamedTuple

import httpx
import pytest

from tests.database_proxy import Proxy
from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.world import BESIDE_LOGINS, Body, Stage, recorded, send_push
from wxauth.service.build import Timeouts
from wxauth_desk.wechat.push import Format, Mode, SignedPush, make_person_message, sign_push

PLAIN = {**APP, "push_token": "1ab2cPushTokenOfTheFirstApp"}
SEALED = {**OTHER_APP, "push_token": "3de4fPushTokenOfTheSecondApp", "push_aes_key": "K9x" + "mQ2w7RtLz0" * 4}
REVOKED, LEFT = "user_authorization_revoke", "user_authorization_cancellation"
PROFILE = {"nickname": "Alice", "avatar_url": "https://a.example/1.png", "phone": "+8613800138000"}
ECHO = "4375120948345356249"
NOW = 1_795_161_600
HURRIED = Timeouts(pushed_messages=0.25, retries=0.1)
"""The seconds that a service waits for its database, and the pause before it tries again."""
nonces = count(10**9)


class Way(NamedTuple):
    """An app, with the mode and the format of its messages."""

    app: dict[str, str]
    mode: Mode
    format: Format

    def __str__(self) -> str:
        return f"{self.mode}-{self.format}"


WAYS = [Way(PLAIN, "plain", "json"), Way(PLAIN, "plain", "xml"), Way(SEALED, "aes", "json"), Way(SEALED, "aes", "xml")]
every_way = pytest.mark.parametrize("way", WAYS, ids=str)


def message(
    openid: str, event: str = REVOKED, revoke_info: Any = "6", *, app: Mapping[str, str] = PLAIN, now: int = NOW
) -> dict[str, Any]:
    return make_person_message(openid, event, revoke_info, app_id=app["app_id"], now=now)


def signed(
    content: Mapping[str, Any],
    app: Mapping[str, str] = PLAIN,
    mode: Mode = "plain",
    format: Format = "json",
    **changed: Any,
) -> SignedPush:
    values = {"timestamp": str(NOW), "nonce": str(next(nonces)), **changed}
    return sign_push(app, content, mode=mode, format=format, **values)


def assert_taken(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.text) == (200, "success")
    assert answer.headers["content-type"].startswith("text/plain")


def unread(body: bytes, app: Mapping[str, str] = PLAIN) -> SignedPush:
    """Return any body with a query that WeChat has signed."""
    return SignedPush(signed({}, app).query, body, "application/octet-stream")


@dataclass(slots=True)
class Inbox:
    """Users with data that they can withdraw, and a WeChat that pushes messages."""

    stage: Stage

    async def receive_with(self, **settings: object) -> None:
        """Let WeChat push to a replica with these settings. Users still log in to the first replica."""
        self.stage = replace(await self.stage.replica(**settings), login=self.stage.login)

    async def cut_off(self, database: Proxy, **settings: object) -> None:
        """Let WeChat push to a replica whose database isn't reachable."""
        await self.receive_with(**settings, database_url=database.url, timeouts=HURRIED)
        await database.refuse()

    async def log_in(
        self, app: Mapping[str, str] = PLAIN, person: str = "alice", *, unionid: str | None = None
    ) -> Body:
        """Log in a user who has a nickname, a picture and a phone number."""
        given = {name: PROFILE[name] for name in ("nickname", "avatar_url")}
        body = await self.stage.login(person, app=app, unionid=unionid, **given)
        verified = "UPDATE users SET phone = $2, phone_verified_at = now() WHERE id::text = $1"
        await self.stage.rows.execute(verified, body["user"]["id"], PROFILE["phone"])
        return body

    async def openid(self, app: Mapping[str, str] = PLAIN, person: str = "alice") -> str:
        """Log in a user, and return their openid."""
        return (await self.log_in(app, person))["user"]["openid"]

    async def post(self, push: SignedPush, app: Mapping[str, str] = PLAIN) -> httpx.Response:
        return await send_push(self.stage.client, push, app)

    async def send(self, content: Mapping[str, Any], app: Mapping[str, str] = PLAIN, **how: Any) -> None:
        """Push a message, and check that it's accepted."""
        how = how or ({"mode": "aes"} if "push_aes_key" in app else {})
        assert_taken(await self.post(signed(content, app, **how), app))

    async def refuse(self, push: SignedPush, app: Mapping[str, str] = PLAIN) -> None:
        """Push a forged message, and check that it's rejected."""
        problem_of(await self.post(push, app), "invalid_signature", 403)

    async def postpone(self, push: SignedPush) -> None:
        """Push a message while the database doesn't respond in time, and check that it fails with 503."""
        problem_of(await self.post(push), "storage_unavailable", 503)

    async def verify_url(self, push: SignedPush, app: Mapping[str, str] = PLAIN) -> httpx.Response:
        query = {**push.query, "echostr": ECHO}
        return await self.stage.client.get(f"/v1/wechat/push/{app['app_id']}", params=query)

    async def kept(self) -> Body:
        """Return the remaining profile of the only user."""
        return dict(await self.stage.rows.fetchrow("SELECT nickname, avatar_url, phone FROM users"))

    async def events(self) -> list[tuple[Any, ...]]:
        return await recorded(self.stage.rows, "type, actor, user_id, app_id, data", BESIDE_LOGINS)
