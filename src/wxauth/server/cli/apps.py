"""`wxauth apps`: the mini-programs."""

import sys
from typing import TYPE_CHECKING, Any

import click

from wxauth.server.cli.asking import Failed, json_option, print_table, printable, with_services

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wxauth.server.apps.bodies import AppAnswer
    from wxauth.server.apps.registry import KnownApp
    from wxauth.server.core.services import Services

_LABELS = {"app_secret": "AppSecret", "push_token": "Token", "push_aes_key": "EncodingAESKey"}

_title_option = click.option("--title", help="The name that administrators see. Empty: none.")
_token_option = click.option("--push-token", is_flag=True, help="Ask for Token of WeChat's message push settings too.")
_key_option = click.option("--push-aes-key", is_flag=True, help="Ask for EncodingAESKey too.")
_check_option = click.option("--no-check", is_flag=True, help="Do not ask WeChat whether it takes the secret.")
_sign_up_option = click.option(
    "--sign-up",
    type=click.Choice(["open", "closed", "default"]),
    help="Whether newcomers may log in to this app; default: as WXAUTH_SIGN_UP says.",
)


@click.group()
def apps() -> None:
    """The mini-programs: those of the settings, and those that are added while the service runs."""


@apps.command("list")
@json_option
def list_apps(as_json: bool) -> None:
    """Print every app, without its secrets."""
    from pydantic_core import to_json

    from wxauth.server.apps.bodies import app_answer

    async def ask(services: "Services") -> "list[AppAnswer]":
        return [app_answer(services, known) for known in services.apps.all()]

    found = with_services(ask)
    if as_json:
        click.echo(to_json(found))
        return
    rows = [
        (
            app["app_id"],
            app["source"],
            "enabled" if app["is_enabled"] else "disabled",
            app["sign_up"] or "-",
            "aes" if app["has_push_aes_key"] else "plain" if app["has_push_token"] else "-",
            printable(app["title"]),
        )
        for app in found
    ]
    print_table([("APP_ID", "SOURCE", "STATE", "SIGN_UP", "PUSH", "TITLE"), *rows])


@apps.command("add")
@click.argument("app_id")
@_title_option
@_sign_up_option
@_token_option
@_key_option
@click.option("--disabled", is_flag=True, help="Let nobody log in to it yet.")
@_check_option
@json_option
def add_app(
    app_id: str,
    title: str | None,
    sign_up: str | None,
    push_token: bool,
    push_aes_key: bool,
    disabled: bool,
    no_check: bool,
    as_json: bool,
) -> None:
    """Let people log in to one more app; running services have it within 15 seconds.

    The secrets are asked for, or read from standard input, one a line: AppSecret, then Token and EncodingAESKey if
    their options are given.
    """
    from wxauth.server.apps.bodies import AppRequest
    from wxauth.server.apps.managing import add_app
    from wxauth.server.core.settings import App
    from wxauth.server.core.trail import OPERATOR

    secrets = _asked_for(app_secret=True, push_token=push_token, push_aes_key=push_aes_key)
    wanted = _valid(
        AppRequest,
        {"app_id": app_id, "title": title, "sign_up": _sign_up(sign_up), "is_enabled": not disabled} | secrets,
    )
    app = App(**{name: getattr(wanted, name) for name in App.model_fields})
    _answer(
        lambda services: add_app(
            services, app, title=wanted.title, is_enabled=wanted.is_enabled, is_checked=not no_check, by=OPERATOR
        ),
        app_id,
        "added",
        as_json=as_json,
    )


@apps.command("set")
@click.argument("app_id")
@_title_option
@_sign_up_option
@click.option("--secret", is_flag=True, help="Ask for a new AppSecret.")
@_token_option
@_key_option
@click.option("--no-push", is_flag=True, help="Forget Token and EncodingAESKey.")
@click.option("--enable/--disable", "is_enabled", default=None, help="Whether people may log in; sessions go on.")
@_check_option
@json_option
def set_app(
    app_id: str,
    title: str | None,
    sign_up: str | None,
    secret: bool,
    push_token: bool,
    push_aes_key: bool,
    no_push: bool,
    is_enabled: bool | None,
    no_check: bool,
    as_json: bool,
) -> None:
    """Change an added app as the options say; running services know it within 15 seconds.

    Secrets are asked for, or read from standard input, one a line in this order: AppSecret, Token, EncodingAESKey.
    """
    from wxauth.server.apps.bodies import AppChangeRequest
    from wxauth.server.apps.managing import change
    from wxauth.server.core.trail import OPERATOR

    if no_push and (push_token or push_aes_key):
        raise click.UsageError("--no-push goes with neither --push-token nor --push-aes-key.")
    given: dict[str, Any] = {}
    if title is not None:
        given["title"] = title
    if sign_up is not None:
        given["sign_up"] = _sign_up(sign_up)
    if is_enabled is not None:
        given["is_enabled"] = is_enabled
    if no_push:
        given |= {"push_token": None, "push_aes_key": None}
    given |= _asked_for(app_secret=secret, push_token=push_token, push_aes_key=push_aes_key)
    if not given:
        raise click.UsageError("there is nothing to change: name an option. 请至少指定一个选项。")
    changes = _valid(AppChangeRequest, given).changes
    _answer(
        lambda services: change(services, app_id, changes, is_checked=not no_check, by=OPERATOR),
        app_id,
        "changed",
        as_json=as_json,
    )


@apps.command("remove")
@click.argument("app_id")
def remove_app(app_id: str) -> None:
    """Let nobody log in to an app any more, and forget its secrets; its users and their sessions stay."""
    from wxauth.server.apps.managing import remove_app
    from wxauth.server.core.trail import OPERATOR

    _done(lambda services: remove_app(services, app_id, by=OPERATOR), app_id)
    click.echo(f"removed {app_id}")


@apps.command("force-token")
@click.argument("app_id")
def force_token(app_id: str) -> None:
    """Have WeChat replace an app's WeChat token; the former token stops working for everybody who has it.

    Use it if WeChat refuses a token (40001, 40014, 42001) and yet hands out the same token again. Running services
    look for the new token when WeChat refuses theirs, or within a minute. WeChat allows this twenty times a day, at
    least 30 s apart.
    """
    from wxauth.errors import UnknownApp, WeChatError
    from wxauth.server.siblings.wechat_tokens import force_wechat_token

    try:
        with_services(lambda services: force_wechat_token(services, app_id))
    except UnknownApp:
        raise Failed(f"{app_id} is not one of the configured apps. 未配置 {app_id}。") from None
    except WeChatError as exc:
        raise Failed(f"WeChat: {exc.detail} ({exc.code})") from None
    click.echo(f"{app_id} has a new token")


def _asked_for(**wanted: bool) -> dict[str, str]:
    """Ask for these secrets. None is taken from the command line, which every user of the machine can see."""
    names = [name for name, is_wanted in wanted.items() if is_wanted]
    if sys.stdin.isatty():
        return {name: click.prompt(_LABELS[name], hide_input=True, err=True) for name in names}
    return {name: sys.stdin.readline().strip() for name in names}


def _valid(kind: Any, values: dict[str, Any]) -> Any:
    """The values as the body of a request, checked alike.

    Raises: click.UsageError for what stands in the command line, Failed for what was read from a prompt. Both name the
    field and never its value.
    """
    from pydantic import ValidationError

    try:
        return kind.model_validate(values)
    except ValidationError as exc:
        errors = exc.errors(include_input=False)
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}" for each in errors]
        is_of_prompt = {part for each in errors for part in each["loc"]} <= _LABELS.keys()
        raise (Failed if is_of_prompt else click.UsageError)("\n".join(lines)) from None


def _sign_up(chosen: str | None) -> str | None:
    return None if chosen == "default" else chosen


def _answer(ask: "Callable[[Services], Awaitable[KnownApp]]", app_id: str, done: str, *, as_json: bool) -> None:
    from pydantic_core import to_json

    from wxauth.server.apps.bodies import app_answer

    async def answered(services: "Services") -> "AppAnswer":
        return app_answer(services, await ask(services))

    answer = _done(answered, app_id)
    click.echo(to_json(answer) if as_json else f"{done} {app_id}")


def _done(ask: "Callable[[Services], Awaitable[Any]]", app_id: str) -> Any:
    from wxauth.errors import AppInSettings, AppRefused, AppTaken, InvalidRequest, NotFound, WeChatError

    try:
        return with_services(ask)
    except AppTaken:
        raise Failed(f"there is an app {app_id} already. 小程序 {app_id} 已存在。") from None
    except AppInSettings:
        raise Failed(
            f"{app_id} is in the settings, and is changed there. {app_id} 由配置指定，请在配置中修改。"
        ) from None
    except NotFound:
        raise Failed(f"there is no app {app_id}. 没有小程序 {app_id}。") from None
    except AppRefused as exc:
        raise Failed(f"{exc.detail} (errcode {exc.errcode}); nothing is stored. 微信不接受，未保存。") from None
    except InvalidRequest as exc:
        raise Failed(exc.detail) from None
    except WeChatError as exc:
        raise Failed(f"WeChat: {exc.detail} ({exc.code}); --no-check leaves the question out") from None
