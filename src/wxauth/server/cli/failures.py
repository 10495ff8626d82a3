"""Maps our errors to the line that a command prints, and its exit status."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from wxauth.errors import (
    AppInSettings,
    AppRefused,
    AppTaken,
    NameTaken,
    NotFound,
    StorageUnavailable,
    Title,
    UnknownApp,
    WeChatError,
    WxAuthError,
)
from wxauth.server.cli.printing import Failed, terminal_language
from wxauth.server.core.database import trouble_of
from wxauth.server.core.sealing import WRONG_SECRET_KEY, CannotOpen
from wxauth.server.core.settings import InvalidSettings

_NOUNS: Final = {
    "client_name": Title("service client", "服务客户端"),
    "webhook_name": Title("webhook", "Webhook"),
    "user_id": Title("user", "用户"),
    "app_id": Title("app", "应用"),
}
"""What a command is about, by the name of its argument."""
_NOTHING: Final = Title("", "")


@contextmanager
def failures_printed() -> Iterator[None]:
    """If one of our errors is raised, end the command with a line and status 1. Raises: Failed."""
    try:
        yield
    except (WxAuthError, CannotOpen, InvalidSettings) as exc:
        raise Failed(_line_of(exc)) from None


def _line_of(exc: WxAuthError | CannotOpen | InvalidSettings) -> str:
    options = click.get_current_context().params
    noun, name = next(((_NOUNS[option], options[option]) for option in _NOUNS if option in options), (_NOTHING, ""))
    match exc:
        case InvalidSettings():
            return str(exc)
        case CannotOpen():
            return f"{WRONG_SECRET_KEY.en}. {WRONG_SECRET_KEY.zh}。"
        case StorageUnavailable():
            return f"WXAUTH_DATABASE_URL: {getattr(trouble_of(exc), terminal_language())}"
        case NotFound() if exc.detail == f"there is no such {noun.en}":
            return f"there is no {noun.en} {name}. {noun.zh} {name} 不存在。"
        case NameTaken() | AppTaken():
            return f"{noun.en} {name} exists already. {noun.zh} {name} 已存在。"
        case AppInSettings():
            return f"{name} is in the settings: change it there. {name} 由配置指定，请在配置中修改。"
        case UnknownApp() if noun is _NOUNS["app_id"]:
            return f"{name} is not one of the configured apps. 未配置 {name}。"
        case AppRefused():
            return f"{exc.detail} (errcode {exc.errcode}); nothing is stored. 微信不接受，未保存。"
        case WeChatError():
            return f"WeChat: {exc.detail} ({exc.code})" + (
                "; --no-check skips this check" if "no_check" in options else ""
            )
        case _:
            return f"{exc.detail or exc.title.en}. {exc.title.zh}"
