"""The checks of each app's handler, which receives WeChat's messages from wxauth, and of the sign-up hook."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

from wxauth.checks.result import CheckResult, bad, good
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.errors import PushNotForwarded, StorageUnavailable
from wxauth.i18n import lazy_gettext as _
from wxauth.login.sign_up_hook import HookFailed, SignUpHook
from wxauth.outbound.receivers import ReceiverTransport
from wxauth.push.forwarding import PushAnswer, PushRequest, send_to_handler
from wxauth.push.queries import claim_signature
from wxauth.push.receiving import ANSWER_SECONDS
from wxauth.settings.apps import App
from wxauth.settings.settings import Settings
from wxauth.wechat.messages import make_handshake

# The `echostr` and the nonce in a handshake from WeChat are decimal numbers with up to this many digits.
_ECHOSTR_DIGITS: Final = 19
_NONCE_DIGITS: Final = 10


async def check_push_forward(app: App, settings: Settings, *, clock: Clock) -> AsyncGenerator[CheckResult, None]:
    """Check an app's handler, if the app has one, in the same way as WeChat checks a URL before saving it."""
    if app.push_forward is None:
        return
    name = f"wechat {app.app_id} push_forward"
    echostr = str(secrets.randbelow(10**_ECHOSTR_DIGITS))
    try:
        answer = await _send_handshake(app, app.push_forward, settings, echostr=echostr, now=clock())
    except StorageUnavailable:
        yield bad(name, _("not checked, because the database doesn't respond"))
        return
    except (PushNotForwarded, TimeoutError) as exc:
        reason = exc.detail if isinstance(exc, PushNotForwarded) else _("no response in time")
        text = _(
            "{reason}, so messages aren't forwarded. Correct the URL, or make sure that it passes WeChat's "
            "verification",
            reason=reason,
        )
        yield bad(name, text)
        return
    if answer.content == echostr.encode():
        yield good(name, _("passes WeChat's verification of the URL"))
    else:
        text = _(
            "did not return the echostr. The receiver's Token must match this app's push_token, and the "
            "receiver must return only the echostr to a GET request"
        )
        yield bad(name, text)


async def _send_handshake(app: App, url: str, settings: Settings, *, echostr: str, now: datetime) -> PushAnswer:
    """Mark the signature of a handshake as used, send the handshake to this URL, and return the response.

    The handler may log the signature, which does not cover a message. If it were unused, an attacker who reads that log
    could send wxauth a forged message with it, for example about a withdrawn authorization.
    """
    nonce = str(secrets.randbelow(10**_NONCE_DIGITS))
    query, signature = make_handshake(app, nonce=nonce, echostr=echostr, now=now)
    request = PushRequest(urlencode(query).encode(), content_type=None, is_forwarded=False, body=b"")
    async with (
        aclosing(Database(settings.database_url.get_secret_value())) as database,
        aclosing(ReceiverTransport()) as transport,
    ):
        # InvalidSignature is not expected, because no message of the same second has this random nonce.
        await claim_signature(database, signature, now=now)
        async with asyncio.timeout(ANSWER_SECONDS):
            return await send_to_handler(transport, url, request, method="GET")


async def check_sign_up_hook(settings: Settings, *, clock: Clock) -> AsyncGenerator[CheckResult, None]:
    """Send the sign-up hook, if there is one, a message of type `test` without a user."""
    async with aclosing(ReceiverTransport()) as transport:
        hook = SignUpHook(settings=settings, transport=transport, clock=clock)
        if not hook.is_on:
            return
        try:
            await hook.ask({"type": "test"}, now=clock())
            yield good("sign_up_hook", _("responds"))
        except HookFailed as exc:
            consequence = _("all new users can sign up")
            if settings.sign_up_hook_failure == "refuse":
                consequence = _("new users can't sign up")
            text = _(
                "fails ({reason}), so {consequence}. Check WXAUTH_SIGN_UP_HOOK_URL",
                reason=exc.text,
                consequence=consequence,
            )
            yield bad("sign_up_hook", text)
