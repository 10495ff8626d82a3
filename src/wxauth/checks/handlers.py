"""The checks of each app's handler of WeChat's messages, of the sign-up hook, and of the receivers' proxy."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

import httpx

from wxauth.checks.result import CheckResult, bad, good
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.errors import PushNotForwarded, StorageUnavailable
from wxauth.i18n import lazy_gettext as _
from wxauth.login.sign_up_hook import HookFailed, SignUpHook
from wxauth.outbound.connecting import Connector, Origin, Proxy, ProxyFailed
from wxauth.outbound.receivers import CONNECT_TIMEOUT_SECONDS, receiver_transport_for
from wxauth.push.forwarding import PushAnswer, PushRequest, send_to_handler
from wxauth.push.queries import claim_signature
from wxauth.push.receiving import ANSWER_SECONDS
from wxauth.settings.apps import App
from wxauth.settings.settings import Settings
from wxauth.wechat.messages import make_handshake

# The `echostr` and the nonce in a handshake from WeChat are decimal numbers with up to this many digits.
_ECHOSTR_DIGITS: Final = 19
_NONCE_DIGITS: Final = 10
# The proxy's own machine, and the metadata service of most clouds.
_REFUSED_HOSTS: Final = ("127.0.0.1", "169.254.169.254")


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
        aclosing(receiver_transport_for(settings)) as transport,
    ):
        # InvalidSignature is not expected, because no message of the same second has this random nonce.
        await claim_signature(database, signature, now=now)
        async with asyncio.timeout(ANSWER_SECONDS):
            return await send_to_handler(transport, url, request, method="GET")


async def check_receivers_proxy(settings: Settings) -> AsyncGenerator[CheckResult, None]:
    """Ask `RECEIVERS_PROXY`, if it is set, for addresses that it must refuse, because wxauth cannot check addresses."""
    if settings.receivers_proxy is None:
        return
    name = "receivers_proxy"
    proxy = Proxy.at(settings.receivers_proxy.get_secret_value())
    connector = Connector(proxy=proxy, tls=None)
    targets = [Origin("https", host, port) for host in _REFUSED_HOSTS for port in sorted({443, proxy.port})]
    outcomes = await asyncio.gather(*(_ask_for(connector, target) for target in targets))
    for target, refusal in zip(targets, outcomes, strict=True):
        if refusal is None:
            text = _(
                "connects to {host}, so whoever may set the URL of a webhook can reach that machine through the proxy. "
                "Let the proxy refuse private and link-local addresses",
                host=f"{target.host}:{target.port}",
            )
            yield bad(name, text)
            return
    refusals = [refusal for refusal in outcomes if refusal is not None]
    if any(refusal.status not in (None, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED) for refusal in refusals):
        yield good(name, _("responds, and refuses {hosts}", hosts=", ".join(_REFUSED_HOSTS)))
    else:
        yield bad(name, _("{reason}: check WXAUTH_RECEIVERS_PROXY", reason=refusals[0].args[0]))


async def _ask_for(connector: Connector, target: Origin) -> ProxyFailed | None:
    """Return why the proxy does not connect to a target; None if it does."""
    try:
        connection = await connector.connect(target, until=asyncio.get_running_loop().time() + CONNECT_TIMEOUT_SECONDS)
    except ProxyFailed as exc:
        return exc
    except (httpx.ConnectError, httpx.ConnectTimeout):  # the proxy has connected, and TLS has failed
        return None
    connection.end()
    return None


async def check_sign_up_hook(settings: Settings, *, clock: Clock) -> AsyncGenerator[CheckResult, None]:
    """Send the sign-up hook, if there is one, a message of type `test` without a user."""
    async with aclosing(receiver_transport_for(settings)) as transport:
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
