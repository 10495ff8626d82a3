"""`wxauth apps`: the mini-programs."""

import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError

from wxauth.server.apps.bodies import AppAnswer, AppChangeRequest, AppRequest, app_answer
from wxauth.server.apps.managing import add_app, change, remove_app
from wxauth.server.apps.registry import KnownApp
from wxauth.server.cli.asking import with_services
from wxauth.server.cli.printing import Failed, json_option, printable, show
from wxauth.server.core.services import Services
from wxauth.server.core.settings import App
from wxauth.server.core.trail import OPERATOR
from wxauth.server.siblings.wechat_tokens import force_wechat_token

Command = TypeVar("Command", bound=Callable[..., object])
Body = TypeVar("Body", bound=BaseModel)

_LABELS = {"app_secret": "AppSecret", "push_token": "Token", "push_aes_key": "EncodingAESKey"}


def _app_options(command: Command) -> Command:
    """Add what `add` and `set` have in common."""
    for option in (
        json_option,
        click.option("--no-check", is_flag=True, help="Do not check with WeChat that the secret is valid."),
        click.option("--push-aes-key", is_flag=True, help="Ask for EncodingAESKey too."),
        click.option("--push-token", is_flag=True, help="Ask for Token of WeChat's message push settings too."),
        click.option(
            "--sign-up",
            type=click.Choice(["open", "closed", "default"]),
            help="Whether newcomers may log in to this app; default: as WXAUTH_SIGN_UP says.",
        ),
        click.option("--title", help="The name that administrators see. Empty: none."),
        click.argument("app_id"),
    ):
        command = option(command)
    return command


@click.group()
def apps() -> None:
    """Manage mini-programs. Those of the settings are listed, but cannot be changed."""


@apps.command()
@json_option
def list_command(as_json: bool) -> None:
    """Print every app, without its secrets."""

    async def ask(services: Services) -> list[AppAnswer]:
        return [app_answer(services, known) for known in services.apps.all()]

    found = with_services(ask)
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
    show(found, [("APP_ID", "SOURCE", "STATE", "SIGN_UP", "PUSH", "TITLE"), *rows], as_json=as_json)


@apps.command()
@_app_options
@click.option("--disabled", is_flag=True, help="Do not allow logins yet.")
def add_command(
    app_id: str,
    title: str | None,
    sign_up: str | None,
    push_token: bool,
    push_aes_key: bool,
    disabled: bool,
    no_check: bool,
    as_json: bool,
) -> None:
    """Add an app; running services have it within 15 seconds.

    The secrets are asked for, or read from standard input, one a line: AppSecret, then Token and EncodingAESKey if
    their options are given.
    """
    secrets = _asked_for(app_secret=True, push_token=push_token, push_aes_key=push_aes_key)
    wanted = _valid(
        AppRequest,
        {"app_id": app_id, "title": title, "sign_up": _sign_up(sign_up), "is_enabled": not disabled} | secrets,
    )
    app = App(**{name: getattr(wanted, name) for name in App.model_fields})
    _show_app(
        lambda services: add_app(
            services, app, title=wanted.title, is_enabled=wanted.is_enabled, is_checked=not no_check, by=OPERATOR
        ),
        f"added {app_id}",
        as_json=as_json,
    )


@apps.command()
@_app_options
@click.option("--secret", is_flag=True, help="Ask for a new AppSecret.")
@click.option("--no-push", is_flag=True, help="Remove Token and EncodingAESKey.")
@click.option("--enable/--disable", "is_enabled", default=None, help="Whether people may log in; sessions go on.")
def set_command(
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
    """Change the given fields of an added app; running services have the change within 15 seconds.

    Secrets are asked for, or read from standard input, one a line in this order: AppSecret, Token, EncodingAESKey.
    """
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
        raise click.UsageError("at least one option must be given. 请至少指定一个选项。")
    changes = _valid(AppChangeRequest, given).changes
    _show_app(
        lambda services: change(services, app_id, changes, is_checked=not no_check, by=OPERATOR),
        f"changed {app_id}",
        as_json=as_json,
    )


@apps.command()
@click.argument("app_id")
def remove_command(app_id: str) -> None:
    """Remove an app and its secrets. Nobody can log in to it; its users and their sessions stay."""
    with_services(lambda services: remove_app(services, app_id, by=OPERATOR))
    click.echo(f"removed {app_id}")


@apps.command()
@click.argument("app_id")
def force_token_command(app_id: str) -> None:
    """Replace an app's WeChat token at WeChat; the former token stops working everywhere.

    Use it if WeChat refuses a token (40001, 40014, 42001) and yet returns the same token again. Running services fetch
    the new token when WeChat refuses theirs, or within a minute. WeChat allows this twenty times a day, at least 30 s
    apart.
    """
    with_services(lambda services: force_wechat_token(services, app_id))
    click.echo(f"{app_id} has a new token")


def _asked_for(**wanted: bool) -> dict[str, str]:
    """Ask for these secrets. None is taken from the command line, which every user of the machine can see."""
    names = [name for name, is_wanted in wanted.items() if is_wanted]
    if sys.stdin.isatty():
        return {name: click.prompt(_LABELS[name], hide_input=True, err=True) for name in names}
    return {name: sys.stdin.readline().strip() for name in names}


def _valid(kind: type[Body], values: dict[str, Any]) -> Body:
    """The values as the body of a request, checked alike.

    Raises: click.UsageError for what stands in the command line, Failed for what was read from a prompt. Both name the
    field and never its value.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as exc:
        errors = exc.errors(include_input=False)
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}" for each in errors]
        is_of_prompt = {part for each in errors for part in each["loc"]} <= _LABELS.keys()
        raise (Failed if is_of_prompt else click.UsageError)("\n".join(lines)) from None


def _sign_up(chosen: str | None) -> str | None:
    return None if chosen == "default" else chosen


def _show_app(ask: Callable[[Services], Awaitable[KnownApp]], text: str, *, as_json: bool) -> None:
    async def answered(services: Services) -> AppAnswer:
        return app_answer(services, await ask(services))

    show(with_services(answered), text, as_json=as_json)
