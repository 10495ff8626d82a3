"""The resources that commands share: settings, the database, the parts of the service, and the texts for errors."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from wxauth.cli.printing import Failed
from wxauth.core.clock import Clock, DatabaseClock, correct_clock
from wxauth.core.database import Database
from wxauth.core.logs import configure_logging
from wxauth.core.outages import outage_text
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer
from wxauth.errors import (
    AppInSettings,
    AppRefused,
    AppTaken,
    NameTaken,
    NotFound,
    StorageUnavailable,
    UnknownApp,
    WeChatError,
    no_such,
)
from wxauth.i18n import Text, TextError, lazy_gettext as _
from wxauth.outbound.urls import NameResolver
from wxauth.settings.loading import load_settings
from wxauth.settings.settings import AnySettings, DatabaseSettings, Settings
from wxauth_guard.errors import InvalidRequest, WxAuthError

if TYPE_CHECKING:
    from wxauth.core.services import Parts, Services

T = TypeVar("T")

# If a command has several of these arguments, the first one in this order counts.
_NOUNS: Final = {
    "client_name": _("service client"),
    "webhook_name": _("webhook"),
    "user_id": _("user"),
    "app_id": _("app"),
}


@contextmanager
def failures_printed() -> Iterator[None]:
    """Convert an error of wxauth that the block raises into Failed, which ends the command with a text and status 1."""
    try:
        yield
    except (WxAuthError, CannotOpen, TextError) as exc:
        raise Failed(_text_of(exc)) from None


def _text_of(exc: WxAuthError | CannotOpen | TextError) -> str:
    arguments = click.get_current_context().params
    noun, name = _noun_and_name_in(arguments)
    match exc:
        case TextError():
            return exc.text
        case CannotOpen():
            return WRONG_SECRET_KEY
        case StorageUnavailable():
            return _("{name}: {rule}", name="WXAUTH_DATABASE_URL", rule=outage_text(exc))
        # This detail means that nothing has the id or the name that the command was called with. The last cases print
        # any other detail.
        case NotFound() if exc.detail == no_such(noun):
            return _("{noun} {name} does not exist", noun=noun, name=name)
        case NameTaken() | AppTaken():
            return _("{noun} {name} already exists", noun=noun, name=name)
        case AppInSettings():
            return _("{name} is defined in the settings. Change it there", name=name)
        case UnknownApp() if noun == _NOUNS["app_id"]:
            return _("{name} isn't one of the configured apps", name=name)
        case AppRefused():
            return _("{detail} (errcode {errcode}); nothing is stored", detail=exc.detail, errcode=exc.errcode)
        case WeChatError():
            advice = _(". To skip this check, add --no-check") if "no_check" in arguments else ""
            return _("WeChat: {detail} ({code})", detail=exc.detail, code=exc.code) + advice
        case InvalidRequest() if exc.errors:
            return Text("\n").join(_("{name}: {rule}", name=field, rule=rule) for field, rule in exc.errors)
        case _ if not exc.detail or isinstance(exc.detail, Text):
            return exc.detail or exc.title
        case _:  # the detail is only in English, so the translated title precedes it
            return _("{title} ({detail})", title=exc.title, detail=exc.detail)


def _noun_and_name_in(arguments: Mapping[str, Any]) -> tuple[str, object]:
    for argument, noun in _NOUNS.items():
        if argument in arguments:
            return noun, arguments[argument]
    return "", ""


def read_settings(kind: type[AnySettings]) -> AnySettings:
    """Load settings of this kind, or fail with a text that names the missing or invalid ones."""
    with failures_printed():
        return load_settings(kind)


def with_database(use: Callable[[Database, datetime], Awaitable[T]]) -> T:
    """Call `use` with the database of WXAUTH_DATABASE_URL and the database's time, and return the result."""
    settings = read_settings(DatabaseSettings)

    async def run() -> T:
        async with aclosing(Database(settings.database_url.get_secret_value())) as database:
            return await use(database, await database.time())

    return _run(run, log_level="critical")  # no log lines, because `Failed` prints the error


def with_parts(use: Callable[["Parts"], Awaitable[T]], *, calls_wechat: bool = False, seals: bool = False) -> T:
    """Call `use` with parts (objects of the service, created when they are first used), and return the result.

    The settings must be complete, as for the service itself. `with_services` provides all parts of the service, but
    importing them takes half a second more.

    With `calls_wechat`, the parts include WeChat's client, and the stored apps have been read. A command that stores
    encrypted values needs `seals`: with wrong secret keys, it would store values that the service cannot open, so the
    keys must open stored values first (`ensure_opens`).
    """
    from wxauth.core.services import Parts

    settings = read_settings(Settings)
    clock = DatabaseClock()

    async def run() -> T:
        async with (
            aclosing(Database(settings.database_url.get_secret_value())) as database,
            AsyncExitStack() as closing,
        ):
            await correct_clock(clock, database)
            sealer, resolver = Sealer(settings.secret_keys), NameResolver()
            if seals:
                from wxauth.checks.sealed import ensure_opens

                await ensure_opens(database, sealer, now=clock())
            parts = Parts(
                {Settings: settings, Clock: clock, Database: database, Sealer: sealer, NameResolver: resolver}
            )
            if calls_wechat:
                await _add_wechat(parts, settings, closing)
            return await use(parts)

    return _run(run, log_level="error")  # the log lines about WeChat's errors say what to change


async def _add_wechat(parts: "Parts", settings: Settings, closing: AsyncExitStack) -> None:
    from wxauth.apps.registry import Apps
    from wxauth.wechat.client import WeChat, transport_for
    from wxauth.wechat.wechat_tokens import WeChatTokens

    wechat = parts[WeChat] = WeChat(transport_for(settings), settings)
    await closing.enter_async_context(aclosing(wechat))
    await closing.enter_async_context(aclosing(parts[WeChatTokens]))
    await parts[Apps].refresh()


def with_services(use: Callable[["Services"], Awaitable[T]]) -> T:
    """Call `use` with all parts of the service, and return the result."""
    from wxauth.apps.registry import Apps
    from wxauth.service.build import build_services

    settings = read_settings(Settings)
    clock = DatabaseClock()

    async def run() -> T:
        async with aclosing(build_services(settings, clock=clock)) as services:
            await correct_clock(clock, services.database)
            await services[Apps].refresh()
            return await use(services)

    return _run(run, log_level="error")


def _run(work: Callable[[], Coroutine[Any, Any, T]], *, log_level: str) -> T:
    configure_logging(level=log_level, log_format="console", stream=sys.stderr.buffer)
    with failures_printed():
        return asyncio.run(work())
