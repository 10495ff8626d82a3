"""Checks the handlers to which WeChat's messages are handed on."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import urlencode

from wxauth.errors import InvalidSignature, PushNotForwarded, StorageUnavailable
from wxauth.server.checks.result import CheckResult, bad, good
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.receivers import NameResolver
from wxauth.server.core.settings import App, Settings
from wxauth.server.push.forwarding import PushRequest, checked_transport, send_on
from wxauth.server.push.receiving import ANSWER_SECONDS
from wxauth.server.push.rows import claim_signature
from wxauth.server.wechat.push import make_handshake


async def check_push_forward(app: App, settings: Settings, *, clock: Clock) -> AsyncGenerator[CheckResult, None]:
    """Check an app's handler, if it has one, as WeChat checks a URL before it saves it.

    The signature is marked as used first, because the handler's logs have it: nobody can make a withdrawal of it.
    """
    if app.push_forward is None:
        return
    name, now = f"wechat {app.app_id} push_forward", clock()
    echostr = str(secrets.randbelow(10**19))
    query, signature = make_handshake(app, nonce=str(secrets.randbelow(10**10)), echostr=echostr, now=now)
    request = PushRequest(urlencode(query).encode(), None, is_forwarded=False, body=b"")
    async with (
        aclosing(Database(settings.database_url.get_secret_value())) as database,
        aclosing(checked_transport(NameResolver())) as transport,
    ):
        try:
            await claim_signature(database, signature, now=now)
        except (StorageUnavailable, InvalidSignature):
            yield bad(name, "not asked, because the database does not answer", "未检查：数据库没有响应")
            return
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await send_on(transport, app, request, method="GET")
        except (PushNotForwarded, TimeoutError) as exc:
            reason = exc.detail if isinstance(exc, PushNotForwarded) else "push_forward: no answer in time"
            yield bad(
                name,
                f"{reason}, so that messages are not handed on: correct the URL, or let it answer WeChat's check",
                f"{reason}，消息无法转发：请改正地址，或让它回答微信的校验",
            )
            return
    if answer.content == echostr.encode():
        yield good(name, "answers WeChat's check of its URL", "能回答微信对地址的校验")
    else:
        yield bad(
            name,
            "gave no echostr back: its Token must be this app's push_token, and a GET be answered with echostr alone",
            "没有返回 echostr：它的 Token 须与本应用的 push_token 一致，并以 echostr 本身回答 GET 请求",
        )
