"""Runs all checks, and checks what is neither PostgreSQL nor WeChat: Python, Redis, hooks, the public URL."""

import asyncio
import http.cookies
import secrets
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from platform import python_version
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlencode

from wxauth.errors import InvalidSignature, PushNotForwarded, StorageUnavailable, Title
from wxauth.guard.jwks import FETCH_TIMEOUT
from wxauth.server.checks.database import check_database
from wxauth.server.checks.issuer import check_issuer, check_resource
from wxauth.server.checks.result import CheckResult, Findings, bad, compare_clocks, good, note
from wxauth.server.checks.rows import some_users
from wxauth.server.checks.wechat import CHECK_TIMEOUT_SECONDS, check_app
from wxauth.server.core.clock import Clock, utc_now
from wxauth.server.core.database import DEADLINES, Database, Deadlines
from wxauth.server.core.logs import message_of
from wxauth.server.core.resources import titles_of
from wxauth.server.core.settings import App, InvalidSettings, Settings, load_settings, unknown_names
from wxauth.server.limits.redis import redis_reason, redis_storage
from wxauth.server.login.newcomers import HookFailed, SignUpHook
from wxauth.server.outbound.receivers import ReceiverTransport
from wxauth.server.outbound.transport import HttpTransport
from wxauth.server.outbound.urls import NameResolver
from wxauth.server.push.forwarding import PushRequest, send_on
from wxauth.server.push.receiving import ANSWER_SECONDS
from wxauth.server.push.rows import claim_signature
from wxauth.server.wechat.client import transport_for
from wxauth.server.wechat.received import make_handshake

REDIS_PATIENCE_SECONDS: Final = 3.0
"""Seconds to wait for an answer."""

_WHAT_TO_CHANGE: Final = "see WXAUTH_SIGN_UP_HOOK_URL"


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
        aclosing(ReceiverTransport(resolve=NameResolver().resolve)) as transport,
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


async def check_sign_up_hook(settings: Settings, *, clock: Clock) -> AsyncGenerator[CheckResult, None]:
    """If the settings have a hook, send it a message of the type `test`, which is about nobody."""
    hook = SignUpHook(settings=settings, transport=ReceiverTransport(resolve=NameResolver().resolve), clock=clock)
    if not hook.is_on:
        return
    async with aclosing(hook):
        try:
            await hook.ask({"type": "test"}, now=clock())
            yield good("sign_up_hook", "answers", "响应正常")
        except HookFailed as exc:
            refuses = settings.sign_up_hook_failure == "refuse"
            consequence = "newcomers are refused" if refuses else "everybody may sign up"
            result = "新用户会被拒绝" if refuses else "任何人都能注册"
            yield bad(
                "sign_up_hook",
                f"fails ({exc}), so {consequence}: {_WHAT_TO_CHANGE}",
                f"无法使用（{exc}），{result}：请检查 WXAUTH_SIGN_UP_HOOK_URL",
            )


async def check_redis(
    settings: Settings, *, patience: float = REDIS_PATIENCE_SECONDS
) -> AsyncGenerator[CheckResult, None]:
    """If Redis is configured, check whether it counts a login within `patience` seconds."""
    if settings.redis_url is None:
        return
    if not settings.login_rate_limit:
        yield good("redis", "not asked, for WXAUTH_LOGIN_RATE_LIMIT is empty", "未检查：WXAUTH_LOGIN_RATE_LIMIT 为空")
        return
    url = settings.redis_url.get_secret_value()
    try:
        async with asyncio.timeout(patience), AsyncExitStack() as closing:
            # Counts, as a login does, because even a replica, or a cluster that is down, would answer a PING.
            storage = redis_storage(url, what="check", patience=patience, closing=closing)
            await storage.incr("check", expiry=1)
        yield good("redis", "answers", "响应正常")
    except Exception as exc:
        reason = redis_reason(exc) or type(exc).__name__
        consequence = "until it does, each process counts for itself; see WXAUTH_REDIS_URL"
        chinese = f"没有响应（{reason}）：恢复之前各进程各自计数；请检查 WXAUTH_REDIS_URL"
        yield bad("redis", f"does not answer ({reason}): {consequence}", chinese)


def judge_python(cookies: ModuleType = http.cookies) -> CheckResult:
    """Whether this Python parses cookies in linear time.

    Its version does not show that, because distributions patch older versions, too. The patched module has no
    `_OctalPatt`.

    Args:
        cookies: The standard library's `http.cookies`.
    """
    if not hasattr(cookies, "_OctalPatt"):
        return good("python", python_version())
    return note(
        "python",
        f"{python_version()} takes seconds to parse a hostile Cookie header (CVE-2024-7592): wxauth parses cookies "
        "itself, but other services on this Python may stop; 3.11.10, 3.12.6 and newer are mended",
        f"{python_version()} 解析恶意 Cookie 请求头需要数秒（CVE-2024-7592）：wxauth 自行解析 Cookie，不受影响，"
        "但使用此 Python 的其他服务可能停顿；3.11.10、3.12.6 及更高版本已修复",
    )


LONGEST_CHECK_SECONDS: Final = 25.0
"""Seconds for one check as a whole. Each of its requests has a shorter limit."""

_LONGEST_REASON: Final = 300


async def check_all() -> list[CheckResult]:
    """Check the settings; if they are valid, check everything else with them."""
    try:
        settings = load_settings(Settings)
    except InvalidSettings as exc:
        return [bad("settings", problem, f"有误：{problem}") for problem in exc.problems]
    results = [good("settings", "each one is of its form", "各项格式正确")]
    results += [bad("settings", line, f"没有这一项：{line}") for line in unknown_names()]
    return results + await examine(settings)


async def examine(
    settings: Settings,
    *,
    clock: Clock = utc_now,
    deadlines: Deadlines = DEADLINES,
    redis_patience: float = REDIS_PATIENCE_SECONDS,
    issuer_patience: float = FETCH_TIMEOUT,
) -> list[CheckResult]:
    """Check the database first, because the other checks need values stored there; then everything else at once.

    Args:
        settings: The settings of the service.
        clock: The time of this machine.
        deadlines: How long the database may take.
        redis_patience: Seconds for Redis.
        issuer_patience: Seconds for each of the issuer's documents. By default as many as siblings wait.
    """
    found = Findings(apps=settings.apps)
    results = [
        judge_python(),
        *await _results_of("database", check_database(settings, found, clock=clock, deadlines=deadlines)),
    ]
    async with aclosing(_transport(settings)) as transport:
        redis, sign_up_hook, issuer, *apps = await asyncio.gather(
            _results_of("redis", check_redis(settings, patience=redis_patience)),
            _results_of("sign_up_hook", check_sign_up_hook(settings, clock=clock)),
            _results_of("issuer", check_issuer(settings.issuer, found, now=clock(), patience=issuer_patience)),
            *(
                _results_of(f"resource {url}", check_resource(url, settings.issuer, patience=issuer_patience))
                for url in titles_of(settings.resources)
            ),
            *_apps(settings, found, transport, clock),
            *(_forward(app, settings, clock) for app in found.apps),
        )
    if found.wechat_readings:  # a delayed answer exaggerates the difference, so the smallest one is the most accurate
        nearest = min(found.wechat_readings, key=lambda reading: abs(reading.ahead))
        results.append(compare_clocks("clock wechat", Title("WeChat's", "微信"), nearest))
    if not found.apps:
        message = "there is none, so nobody can log in: 'wxauth apps add APP_ID', or WXAUTH_APPS"
        results.append(
            bad("apps", message, "没有应用，无人能登录：请运行 'wxauth apps add APP_ID'，或设置 WXAUTH_APPS")
        )
    return [*results, *redis, *sign_up_hook, *issuer, *(result for app in apps for result in app)]


async def examine_app(
    settings: Settings, app: App, *, apps: Sequence[App], clock: Clock = utc_now
) -> list[CheckResult]:
    """Check one app of `apps` at WeChat. Of the database, only the app's users are read."""
    found = Findings(apps=apps)
    async with (
        aclosing(Database(settings.database_url.get_secret_value())) as database,
        aclosing(_transport(settings)) as transport,
    ):
        with suppress(StorageUnavailable):  # without the users, the report lacks the results that depend on them
            found.users = {app.app_id: await some_users(database, app.app_id)}
        check = check_app(app, settings, found, transport=transport, clock=clock)
        of_wechat = await _results_of(f"wechat {app.app_id}", check)
    return of_wechat + await _forward(app, settings, clock)


async def check_apps(settings: Settings, *, clock: Clock = utc_now) -> list[CheckResult]:
    """Check only WeChat's side of each app, without the database."""
    async with aclosing(_transport(settings)) as transport:
        apps = await asyncio.gather(*_apps(settings, Findings(apps=settings.apps), transport, clock))
    return [result for app in apps for result in app]


def _transport(settings: Settings) -> HttpTransport:
    return transport_for(timeout=min(settings.wechat_timeout, CHECK_TIMEOUT_SECONDS), proxy=settings.wechat_proxy)


def _apps(
    settings: Settings, found: Findings, transport: HttpTransport, clock: Clock
) -> Iterator[Coroutine[Any, Any, list[CheckResult]]]:
    for app in found.apps:
        check = check_app(app, settings, found, transport=transport, clock=clock)
        yield _results_of(f"wechat {app.app_id}", check)


async def _forward(app: App, settings: Settings, clock: Clock) -> list[CheckResult]:
    check = check_push_forward(app, settings, clock=clock)
    return await _results_of(f"wechat {app.app_id} push_forward", check)


async def _results_of(name: str, check: AsyncGenerator[CheckResult, None]) -> list[CheckResult]:
    """The results of a check. A failure of the check itself is a result, too, and the other checks continue."""
    results: list[CheckResult] = []
    try:
        async with asyncio.timeout(LONGEST_CHECK_SECONDS), aclosing(check):
            async for result in check:
                results.append(result)  # noqa: PERF401 - the results before a failure are kept
    except TimeoutError:
        message = f"not checked to the end in {LONGEST_CHECK_SECONDS:g} s"
        results.append(bad(name, message, f"{LONGEST_CHECK_SECONDS:g} 秒内未检查完"))
    except Exception as exc:
        reason = f"{type(exc).__name__}: {message_of(exc)}"[:_LONGEST_REASON]
        message = f"not checked to the end, by a fault of wxauth's own: {reason}"
        results.append(bad(name, message, f"因 wxauth 自身的故障未检查完：{reason}"))
    return results
