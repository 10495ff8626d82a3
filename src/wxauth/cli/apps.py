"""The command `wxauth apps`, which manages apps."""

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import click
from pydantic import BaseModel, ValidationError

from wxauth.apps.managed_apps import ManagedApps
from wxauth.apps.registry import Apps, KnownApp
from wxauth.apps.schemas import AppAnswer, AppChangeRequest, AppRequest, app_answer
from wxauth.cli.options import checked, read_picture, takes
from wxauth.cli.printing import Failed, WrongCall, echo, json_option, show, show_items, state_of
from wxauth.cli.resources import with_parts
from wxauth.core.services import Parts
from wxauth.core.trail import OPERATOR
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.settings.apps import AppFields
from wxauth.settings.settings import Settings
from wxauth.terminal import localized, rule_of
from wxauth.wechat.wechat_tokens import WeChatTokens

Body = TypeVar("Body", bound=BaseModel)

# The command prompts for the secrets in this order, with WeChat's names.
_LABELS: Final = {"app_secret": "AppSecret", "push_token": "Token", "push_aes_key": "EncodingAESKey"}
_PUSH_FIELDS: Final = ("push_token", "push_aes_key", "push_forward")  # `--no-push` clears them
# A field's option becomes a switch, with which the command prompts for the secret.
_PROMPTED: Final = {"is_flag": True, "default": None, "callback": None, "metavar": None}


def _hosts(values: Sequence[str]) -> list[str] | str | None:
    if not values:
        return None
    return [host for host in values if host] or ""  # the empty string clears the field


_REPLACEMENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "logo": {
        "metavar": "FILE",
        "callback": checked(read_picture),
        "help": "The app's picture on the login pages: a PNG, JPEG or WebP file of up to 32 KiB and 1024 × 1024 "
        'pixels. "default" means: none.',
    },
    "push_token": {**_PROMPTED, "help": "Also prompt for the Token in WeChat's message push settings."},
    "push_aes_key": {**_PROMPTED, "help": "Also prompt for the EncodingAESKey."},
    "js_hosts": {
        "option": "--js-host",
        "multiple": True,
        "metavar": "HOST",
        "callback": checked(_hosts),
        # The field's description cannot be used, because it ends with the meaning of null. An option cannot be null.
        "help": "The hosts whose pages can use the JS-SDK, as entered in WeChat's console. Only for an "
        "official_account. Repeatable. An empty value removes all hosts.",
    },
}
_app_argument = click.argument("app_id")
_no_check_option = click.option("--no-check", is_flag=True, help="Don't verify the AppSecret with WeChat.")
_with_parts = partial(with_parts, calls_wechat=True)


@click.group()
def apps() -> None:
    """Manage mini-programs and other apps. Apps defined in the settings are listed, but you can't change them here."""


@apps.command()
@json_option
def list_command() -> None:
    """List all apps, without their secrets."""

    async def read_apps(parts: Parts) -> list[AppAnswer]:
        return [app_answer(parts[Settings], parts[Apps], parts[WeChatTokens], known) for known in parts[Apps].all()]

    columns = "app_id source state sign_up push kind title"
    show_items(_with_parts(read_apps), columns, state=state_of, push=_push_mode)


@apps.command()
@_app_argument
@takes(AppFields, clear="default", app_secret=None, **_REPLACEMENTS)
@_no_check_option
@json_option
@click.option("--disabled", is_flag=True, help="Don't allow logins yet.")
def add_command(app_id: str, disabled: bool, no_check: bool, fields: dict[str, Any]) -> None:
    """Add an app. Running services pick up the change within 15 seconds.

    The command prompts you for the secrets. You can also send them on standard input, one per line. The first line is
    the AppSecret. If you use the options for the Token and the EncodingAESKey, these two values follow.
    """
    secrets = _prompted({"app_secret": True, **fields})
    request = _validated(AppRequest, {"app_id": app_id, "is_enabled": not disabled, **fields, **secrets})
    _store_and_show(
        lambda parts: parts[ManagedApps].add(
            request.app, is_enabled=request.is_enabled, asks_wechat=not no_check, by=OPERATOR
        ),
        _("added {name}", name=app_id),
    )
    # Only this command prints the sentence, because an operator often tries a login immediately after adding an app.
    echo(_("Running services pick up the change within 15 seconds."), err=True)


@apps.command()
@_app_argument
@takes(
    AppFields,
    clear="default",
    kind=None,
    app_secret={**_PROMPTED, "option": "--secret", "help": "Prompt for a new AppSecret."},
    **_REPLACEMENTS,
)
@_no_check_option
@json_option
@click.option("--no-push", is_flag=True, help="Remove the Token, the EncodingAESKey and the forwarding URL.")
@click.option("--no-push-forward", is_flag=True, help="Stop forwarding messages.")
@click.option(
    "--enable/--disable", "is_enabled", default=None, help="Whether users can log in. Existing sessions continue."
)
def set_command(
    app_id: str, no_push: bool, no_push_forward: bool, is_enabled: bool | None, no_check: bool, fields: dict[str, Any]
) -> None:
    """Change the given fields of an app. Running services pick up the change within 15 seconds.

    The command prompts you for the secrets. You can also send them on standard input, one per line in this order:
    AppSecret, Token, EncodingAESKey.
    """
    if no_push and not fields.keys().isdisjoint(_PUSH_FIELDS):
        raise WrongCall(_("--no-push can't be used together with --push-token, --push-aes-key or --push-forward"))
    if no_push_forward and "push_forward" in fields:
        raise WrongCall(_("--no-push-forward can't be used together with --push-forward"))
    if no_push:
        fields |= dict.fromkeys(_PUSH_FIELDS)  # the value None clears a field
    if no_push_forward:
        fields["push_forward"] = None
    if is_enabled is not None:
        fields["is_enabled"] = is_enabled
    if not fields:
        raise WrongCall(_("specify at least one option"))
    changes = _validated(AppChangeRequest, fields | _prompted(fields)).changes
    _store_and_show(
        lambda parts: parts[ManagedApps].change(app_id, changes, asks_wechat=not no_check, by=OPERATOR),
        _("changed {name}", name=app_id),
    )


@apps.command()
@_app_argument
def remove_command(app_id: str) -> None:
    """Remove an app and its secrets. Users can no longer log in to the app. Existing users and sessions are kept."""
    _with_parts(lambda parts: parts[ManagedApps].remove(app_id, by=OPERATOR))
    echo(_("removed {name}", name=app_id))


def _push_mode(app: AppAnswer) -> str | None:
    if app.has_push_aes_key:
        return "aes"
    return "plain" if app.has_push_token else None


def _prompted(fields: Mapping[str, Any]) -> dict[str, str]:
    """Prompt for the secrets whose switches in `fields` are on. The callers replace the switches with the secrets.

    The secrets are not values of options, because all users of the machine can see a command line.
    """
    return {name: _ask_for(label) for name, label in _LABELS.items() if fields.get(name)}


def _ask_for(label: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(label, hide_input=True, err=True))
    # Some programs on Windows write a byte order mark at the beginning of a file.
    line = sys.stdin.readline().removeprefix("\N{BYTE ORDER MARK}").strip()
    if not line:
        raise Failed(_("{label} must be on its own line of standard input", label=label))
    return line


def _validated(model: type[Body], values: dict[str, Any]) -> Body:
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        errors = exc.errors(include_input=False)  # the texts name the wrong fields, but never their values
        lines = []
        for error in errors:
            field = ".".join(map(str, error["loc"]))
            lines.append(localized(_("{name}: {rule}", name=field, rule=rule_of(error))))
        wrong_fields = {part for error in errors for part in error["loc"]}
        # The secrets come from standard input, so a wrong one does not make the call itself wrong.
        error_class = Failed if wrong_fields <= _LABELS.keys() else click.UsageError
        raise error_class("\n".join(lines)) from None


def _store_and_show(write: Callable[[Parts], Awaitable[KnownApp]], text: Text) -> None:
    async def store(parts: Parts) -> AppAnswer:
        known = await write(parts)
        return app_answer(parts[Settings], parts[Apps], parts[WeChatTokens], known)

    show(_with_parts(store, seals=True), text)
