"""Messages that WeChat pushes, and how they are sent."""

from collections.abc import Mapping
from itertools import count
from typing import Any, NamedTuple

import httpx
import pytest

from tests.fakes import APP, OTHER_APP
from tests.world import Client
from wxauth.server.dev.wechat.push import (
    Format,
    Mode,
    SignedPush,
    make_message,
    sign_push,
)

PLAIN = {**APP, "push_token": "1ab2cPushTokenOfTheFirstApp"}
SEALED = {**OTHER_APP, "push_token": "3de4fPushTokenOfTheSecondApp", "push_aes_key": "K9x" + "mQ2w7RtLz0" * 4}
REVOKED, LEFT = "user_authorization_revoke", "user_authorization_cancellation"
NOW = 1_795_161_600
nonces = count(10**9)


class Way(NamedTuple):
    """An app, and how its messages come."""

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
    return make_message(openid, event, revoke_info, app_id=app["app_id"], now=now)


def signed(
    content: Mapping[str, Any],
    app: Mapping[str, str] = PLAIN,
    mode: Mode = "plain",
    format: Format = "json",
    **changed: Any,
) -> SignedPush:
    values = {"timestamp": str(NOW), "nonce": str(next(nonces)), **changed}
    return sign_push(app, content, mode=mode, format=format, **values)


async def post(client: Client, push: SignedPush, app: Mapping[str, str] = PLAIN) -> httpx.Response:
    headers = {"Content-Type": push.content_type}
    url = f"/v1/wechat/push/{app['app_id']}"
    return await client.post(url, params=dict(push.query), content=push.body, headers=headers)


def assert_taken(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.text) == (200, "success")
    assert answer.headers["content-type"].startswith("text/plain")
