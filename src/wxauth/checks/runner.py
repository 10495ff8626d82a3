"""The runner of `wxauth check`, for all checks, or only for the checks of apps."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Final

from wxauth.checks.database import check_database, read_signing_keys
from wxauth.checks.handlers import check_push_forward, check_receivers_proxy, check_sign_up_hook
from wxauth.checks.issuer import check_issuer, check_resource
from wxauth.checks.redis import REDIS_PATIENCE_SECONDS, check_redis
from wxauth.checks.result import CheckResult, ClockReading, Findings, bad, good, judge_clock
from wxauth.checks.wechat import CHECK_TIMEOUT_SECONDS, check_app
from wxauth.core.clock import Clock, utc_now
from wxauth.core.connecting import DEADLINES, Deadlines
from wxauth.core.logs import message_of
from wxauth.i18n import lazy_gettext as _
from wxauth.outbound.transport import HttpTransport
from wxauth.settings.apps import App
from wxauth.settings.loading import load_settings, setting_faults
from wxauth.settings.settings import InvalidSettings, Settings
from wxauth.wechat.client import transport_for
from wxauth_guard.issuer import FETCH_TIMEOUT
from wxauth_guard.verifier import CLOCK_SKEW

CHECK_LIMIT_SECONDS: Final = 25.0  # of a whole check, for example of one app, whose requests have shorter limits
# All queries of `check_database` share `total`. On a busy machine, they took longer than the default of 8 s. If the
# database hangs, `silence` ends the wait earlier.
_DEADLINES: Final = replace(DEADLINES, total=20.0)
_MAX_REASON: Final = 300  # characters


async def check_all() -> list[CheckResult]:
    """Check the settings of this machine. If they are valid, run all other checks with them."""
    try:
        settings = load_settings(Settings)
    except InvalidSettings as exc:
        return [bad("settings", problem) for problem in exc.problems]
    results = [good("settings", _("all settings have a valid form"))]
    # `load_settings` ignores some faults, for example an unknown name that begins with WXAUTH_.
    results += [bad("settings", line) for line in setting_faults()]
    return results + await check_with(settings)


async def check_with(
    settings: Settings,
    *,
    clock: Clock = utc_now,
    deadlines: Deadlines = _DEADLINES,
    issuer_patience: float = FETCH_TIMEOUT,
    redis_patience: float = REDIS_PATIENCE_SECONDS,
) -> list[CheckResult]:
    """Run all checks with valid settings: the database first, and then the other checks in parallel.

    The database comes first because the other checks need the apps and the keys that it stores. `issuer_patience` is
    the number of seconds that the requests for the issuer's documents may take, by default as many as the guard waits.
    """
    findings = Findings(apps=settings.apps)
    results = await _results_of("database", check_database(settings, findings, clock=clock, deadlines=deadlines))
    read_keys = partial(read_signing_keys, settings, clock=clock, deadlines=deadlines)
    issuer_check = check_issuer(settings.issuer, findings, read_keys=read_keys, now=clock(), patience=issuer_patience)
    resource_checks = {
        f"resource {each.resource}": check_resource(each.resource, settings.issuer, patience=issuer_patience)
        for each in settings.resources
    }
    async with aclosing(_transport(settings)) as transport:
        others = await asyncio.gather(
            _results_of("redis", check_redis(settings, patience=redis_patience)),
            _results_of("receivers_proxy", check_receivers_proxy(settings)),
            _results_of("sign_up_hook", check_sign_up_hook(settings, clock=clock)),
            _results_of("issuer", issuer_check),
            *(_results_of(name, check) for name, check in resource_checks.items()),
            *(_results_of_app(app, settings, findings, transport, clock) for app in findings.apps),
            *(_results_of_forward(app, settings, clock) for app in findings.apps),
        )
    if findings.wechat_readings:
        results.append(_judge_wechat_clock(findings.wechat_readings))
    if not findings.apps:
        text = _("no app is enabled, so users can't log in. Run 'wxauth apps add APP_ID', or set WXAUTH_APPS")
        results.append(bad("apps", text))
    return [*results, *chain.from_iterable(others)]


def _judge_wechat_clock(readings: Sequence[ClockReading]) -> CheckResult:
    # An error of this machine's clock appears in all readings. A difference in only some of them has another cause, for
    # example a proxy that repeats a stored response with an old time. So the smallest difference counts.
    nearest = min(readings, key=lambda reading: abs(reading.ahead_seconds))
    why = _("but tokens tolerate a difference of only {seconds} s", seconds=CLOCK_SKEW)
    return judge_clock(nearest, name="clock wechat", whose=_("WeChat's"), allowed_seconds=CLOCK_SKEW, why=why)


async def check_app_and_forward(settings: Settings, app: App, *, apps: Sequence[App]) -> list[CheckResult]:
    """Check one app with WeChat, and its `push_forward`. `apps` contains all apps, including this app."""
    findings = Findings(apps=apps)
    async with aclosing(_transport(settings)) as transport:
        results = await _results_of_app(app, settings, findings, transport, utc_now)
    return results + await _results_of_forward(app, settings, utc_now)


async def check_apps_with_wechat(settings: Settings) -> list[CheckResult]:
    """Check each app in the settings with WeChat, without the database, and without `push_forward`."""
    findings = Findings(apps=settings.apps)
    async with aclosing(_transport(settings)) as transport:
        results = await asyncio.gather(
            *(_results_of_app(app, settings, findings, transport, utc_now) for app in settings.apps)
        )
    return list(chain.from_iterable(results))


def _transport(settings: Settings) -> HttpTransport:
    return transport_for(settings, at_most=CHECK_TIMEOUT_SECONDS)


async def _results_of_app(
    app: App, settings: Settings, findings: Findings, transport: HttpTransport, clock: Clock
) -> list[CheckResult]:
    check = check_app(app, settings, findings, transport=transport, clock=clock)
    return await _results_of(f"wechat {app.app_id}", check)


async def _results_of_forward(app: App, settings: Settings, clock: Clock) -> list[CheckResult]:
    check = check_push_forward(app, settings, clock=clock)
    return await _results_of(f"wechat {app.app_id} push_forward", check)


async def _results_of(name: str, check: AsyncGenerator[CheckResult | None, None]) -> list[CheckResult]:
    results: list[CheckResult] = []
    try:
        async with asyncio.timeout(CHECK_LIMIT_SECONDS), aclosing(check):
            async for result in check:
                if result is not None:
                    results.append(result)  # noqa: PERF401 - the results before a failure are kept
    except TimeoutError:
        text = _("the check didn't finish within {seconds:g} s", seconds=CHECK_LIMIT_SECONDS)
        results.append(bad(name, text))
    except Exception as exc:  # the other checks must continue
        reason = f"{type(exc).__name__}: {message_of(exc)}"[:_MAX_REASON]
        text = _("the check failed because of an internal error: {reason}", reason=reason)
        results.append(bad(name, text))
    return results
