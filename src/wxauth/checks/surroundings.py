"""The checks of the operator's own handlers, which wxauth calls."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import urlencode

from wxauth.checks.result import CheckResult, bad, good
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.errors import PushNotForwarded, StorageUnavailable
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.login.sign_up_hook import HookFailed, SignUpHook
from wxauth.outbound.receivers import ReceiverTransport
from wxauth.push.forwarding import PushRequest, send_to_handler
from wxauth.push.queries import claim_signature
from wxauth.push.receiving import ANSWER_SECONDS
from wxauth.settings.apps import App
from wxauth.settings.settings import Settings
from wxauth.wechat.received import make_handshake


async def check_push_forward(app: App, settings: Settings, *, clock: Clock) -> AsyncGenerator[CheckResult, None]:
    """Check an app's handler, if the app has one, in the same way as WeChat checks a URL before saving it.

    The signature is marked as used before it is sent, because the handler may log it. Otherwise an attacker who reads
    that log could use the signature for a forged message about a withdrawn authorization.
    """
    if app.push_forward is None:
        return
    name, now = f"wechat {app.app_id} push_forward", clock()
    echostr = str(secrets.randbelow(10**19))
    query, signature = make_handshake(app, nonce=str(secrets.randbelow(10**10)), echostr=echostr, now=now)
    request = PushRequest(urlencode(query).encode(), None, is_forwarded=False, body=b"")
    async with (
        aclosing(Database(settings.database_url.get_secret_value())) as database,
        aclosing(ReceiverTransport()) as transport,
    ):
        try:
            # InvalidSignature is not expected, because no message of the same second has this random nonce.
            await claim_signature(database, signature, now=now)
        except StorageUnavailable:
            yield bad(name, _("not checked, because the database doesn't respond"))
            return
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await send_to_handler(transport, app, request, method="GET")
        except (PushNotForwarded, TimeoutError) as exc:
            reason = exc.detail if isinstance(exc, PushNotForwarded) else _("no response in time")
            yield bad(
                name,
                _(
                    "{reason}, so messages aren't forwarded. Correct the URL, or make sure that it passes WeChat's "
                    "verification",
                    reason=reason,
                ),
            )
            return
    if answer.content == echostr.encode():
        yield good(name, _("passes WeChat's verification of the URL"))
    else:
        yield bad(
            name,
            _(
                "did not return the echostr. The receiver's Token must match this app's push_token, and the "
                "receiver must return only the echostr to a GET request"
            ),
        )


async def check_sign_up_hook(settings: Settings, *, clock: Clock) -> AsyncGenerator[CheckResult, None]:
    """Send a message of type `test`, without a user, to the sign-up hook, if there is one."""
    async with aclosing(ReceiverTransport()) as transport:
        hook = SignUpHook(settings=settings, transport=transport, clock=clock)
        if not hook.is_on:
            return
        try:
            await hook.ask({"type": "test"}, now=clock())
            yield good("sign_up_hook", _("responds"))
        except HookFailed as exc:
            refuses = settings.sign_up_hook_failure == "refuse"
            text = _("fails ({reason}), so {consequence}. Check WXAUTH_SIGN_UP_HOOK_URL")
            consequence = _("new users can't sign up") if refuses else _("all new users can sign up")
            yield bad("sign_up_hook", Text(text, reason=exc.text, consequence=consequence))
