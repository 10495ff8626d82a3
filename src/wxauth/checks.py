"""`wxauth check`: what is wrong, and what to do. Changes nothing."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from wxauth.errors import InvalidCode, StorageUnavailable, WeChatError, WeChatMisconfigured
from wxauth.keyring import unsealed
from wxauth.sealing import CannotOpen
from wxauth.services import Services
from wxauth.settings import AppSettings, InvalidSettings, Settings, load_settings, unknown_names
from wxauth.store.database import reason_of
from wxauth.store.migrations import is_schema_usable
from wxauth.store.signing_keys import published_keys
from wxauth.wechat.errcodes import WHAT_TO_CHANGE


class Result(NamedTuple):
    """One line of the report."""

    name: str
    ok: bool
    message: str


async def check_all() -> list[Result]:
    """Settings first; where they are good, the database and WeChat by way of them."""
    try:
        settings = load_settings(Settings)
    except InvalidSettings as exc:
        return [Result("settings", False, problem) for problem in exc.problems]
    results = [Result("settings", True, "each one is of its form")]
    results += [Result("settings", False, line) for line in unknown_names()]
    services = Services.build(settings)
    try:
        results += [result async for result in _check_database(services)]
        results += [await _check_app(services, app) for app in settings.apps]
    finally:
        await services.aclose()
    return results


async def _check_database(services: Services) -> AsyncIterator[Result]:
    try:
        usable = await is_schema_usable(services.database)
    except StorageUnavailable as exc:
        yield Result("database", False, f"does not answer: {reason_of(exc)}; see WXAUTH_DATABASE_URL")
        return
    yield Result("database", True, "answers")
    yield Result("schema", usable, "fits this version" if usable else "is behind: run 'wxauth migrate'")
    if not usable:
        return
    try:
        stored = await published_keys(services.database, now=services.clock())
        for row in stored:
            unsealed(row, services.sealer)
    except StorageUnavailable as exc:
        yield Result("signing_keys", False, f"cannot be read: {reason_of(exc)}")
    except CannotOpen:
        message = "WXAUTH_SECRET_KEY is not the one that sealed what is stored; see WXAUTH_SECRET_KEY_PREVIOUS"
        yield Result("signing_keys", False, message)
    else:
        yield Result("signing_keys", True, f"{len(stored)} stored" if stored else "made when the service first starts")


async def _check_app(services: Services, app: AppSettings) -> Result:
    name = f"wechat {app.app_id}"
    try:
        # WeChat looks at the app and its secret before it looks at the code.
        await services.wechat.code2session(app, "wxauth-check")
    except InvalidCode:
        return Result(name, True, "answers, and takes the app's secret")
    except WeChatMisconfigured as exc:
        return Result(name, False, WHAT_TO_CHANGE[exc.errcode or 0])
    except WeChatError as exc:
        return Result(name, False, exc.detail)
    return Result(name, False, "took a made-up code for a real one: is WXAUTH_WECHAT_BASE_URL WeChat?")
