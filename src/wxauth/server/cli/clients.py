"""`wxauth clients`: manage sibling services, and sites that log people in."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import click

from wxauth.errors import InvalidRequest
from wxauth.server.apps.rows import stored_apps
from wxauth.server.cli.printing import (
    SHOWN_ONCE,
    Command,
    Failed,
    WrongCall,
    checked,
    field_option,
    json_option,
    print_table,
    read_picture,
    sentence,
    show,
    table,
    to_the_second,
)
from wxauth.server.cli.resources import read_settings, with_database
from wxauth.server.clients.clients import (
    Credentials,
    WrongClient,
    add_client,
    build_client,
    change_client,
    check_name,
    end_sessions_left,
    refers_to_apps,
    refuse_reserved,
    refuse_wrong_apps,
    refuse_wrong_receiver,
    remove_client,
    renew_secret,
    reserved_names,
    with_known_resources,
)
from wxauth.server.clients.models import DEFAULT_SITE_SCOPES, OPTIONS, SITE_SCOPE_NAMES, Client, Scope
from wxauth.server.clients.rows import ALL_CLIENTS
from wxauth.server.core.database import Database
from wxauth.server.core.settings import ClientCommandSettings
from wxauth.server.core.terminal import Text, WrongValue, say, word
from wxauth.server.outbound.urls import NameResolver
from wxauth.server.users.attributes import typed_attribute
from wxauth.server.web.bodies import all_of

_CLAIM: Final = "A claim of its tokens, such as tier=$attributes.tier; a VALUE that is JSON is JSON. Repeatable."
_NO_PKCE: Final = "Make PKCE optional: you vouch that it checks the nonce. Needs a secret."
_REPEATED: Final = {"multiple": True, "callback": None}
_SCOPE: Final = (
    f"Scopes of a service: {', '.join(Scope)}; by default introspect. Scopes of a site: "
    f"{' and '.join(DEFAULT_SITE_SCOPES)} (by default), "
    f"{', '.join(name for name in SITE_SCOPE_NAMES if name not in DEFAULT_SITE_SCOPES)}. Repeatable."
)


def _claims(values: tuple[str, ...]) -> dict[str, Any] | None:
    """The template of `NAME=VALUE`s; empty for one empty text; None without any."""
    template: dict[str, Any] = {}
    for given in filter(None, values):
        name, equals, value = given.partition("=")
        if not equals:
            raise WrongValue("must be NAME=VALUE")
        template[name] = typed_attribute(value)
    return template if values else None


_OF_FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "redirect_uris": _REPEATED,
    "logout_uris": _REPEATED,
    "resources": {**_REPEATED, "metavar": "URL"},
    "pkce": {"type": None, "callback": None, "flag_value": "optional", "help": _NO_PKCE},
    "logo": {"callback": checked(read_picture), "metavar": "FILE"},
    "claims": {"multiple": True, "callback": checked(_claims), "metavar": "NAME=VALUE", "help": _CLAIM},
}
"""How the options of these fields differ from those that their types make."""


def _option_of(field: str) -> str:
    """The option that sets a field, or the argument."""
    if field in ("name", "pkce"):
        return {"name": "NAME", "pkce": "--no-pkce"}[field]
    word = field.removeprefix("is_").removesuffix("_id").removesuffix("_app").removesuffix("s")
    return f"--{word.replace('_', '-')}"


def _client_options(*, is_change: bool) -> Callable[[Command], Command]:
    """Add the options of a client's fields to a command. `set` can also clear a value, by an empty text."""

    def decorate(command: Command) -> Command:
        if is_change:
            command = click.option("--pkce", "pkce", flag_value="required", help="Require PKCE again.")(command)
        text = _SCOPE + (" Replaces all: name those that it keeps, too." if is_change else "")
        scopes = click.Choice([*map(str, Scope), *SITE_SCOPE_NAMES])
        command = click.option("--scope", "scopes", multiple=True, type=scopes, metavar="SCOPE", help=text)(command)
        for name, shape in reversed(Client.model_json_schema()["properties"].items()):
            if name not in OPTIONS or (is_change and name == "is_public"):  # the last never changes
                continue
            option, clear = _option_of(name), "" if is_change else None
            if is_change and shape.get("type") == "boolean":
                option = f"{option}/--no-{option[2:]}"
            command = field_option(name, shape, option=option, clear=clear, **_OF_FIELDS.get(name, {}))(command)
        return command

    return decorate


def _changes_in(options: dict[str, Any]) -> dict[str, Any]:
    """The changes that the given options request; an empty text removes a value. Raises: click.UsageError."""
    named = {name: value for name, value in options.items() if value not in (None, ())}
    if not named:
        raise WrongCall("--scope or another option must be given")
    return {
        name: [each for each in value if each] if isinstance(value, tuple) else None if value == "" else value
        for name, value in named.items()
    }


@contextmanager
def _refused_as_wrong_call() -> Iterator[None]:
    """Convert a refused field of a client into an error about its option. Raises: click.BadParameter."""
    try:
        yield
    except WrongClient as exc:
        ((field, text),) = exc.errors
        raise click.BadParameter(sentence(text), param_hint=_option_of(field)) from None


_name_argument = click.argument("client_name", metavar="NAME", callback=checked(check_name))


@click.group()
def clients() -> None:
    """Manage services and sites that use wxauth.

    Services may ask about tokens and users, and read events; sites log people in.
    """


@clients.command()
@_name_argument
@_client_options(is_change=False)
@json_option
def add_command(client_name: str, as_json: bool, **options: Any) -> None:
    """Add a service, and print its secret, this once. It authenticates by HTTP Basic as NAME.

    With --redirect-uri or --device, it is a site of yours that logs people in by scan. NAME is its client_id.
    """
    with _refused_as_wrong_call():
        options = _with_known_resources(options)
        client = build_client(client_name, options)  # a wrong call is refused without the database
        _check_apps(options)
        refuse_reserved(client, _reserved())

    async def add(database: Database, now: datetime) -> Credentials | None:
        with _refused_as_wrong_call():
            await refuse_wrong_receiver(options, NameResolver())
        async for _ in end_sessions_left(database, client_name):
            pass  # a removed client's, which keep the name until then
        return await add_client(database, client, now=now)

    credentials = with_database(add)
    _show(client_name, credentials, client.scopes, as_json=as_json)


@clients.command()
@_name_argument
@_client_options(is_change=True)
def set_command(client_name: str, **options: Any) -> None:
    """Change the given fields of a service or a site.

    A repeatable option replaces the whole list, and an empty text clears a field. Takes effect at once. A site's
    sessions continue without removed scopes.
    """
    changes, reserved = _changes_in(options), _reserved()
    with _refused_as_wrong_call():
        changes = _with_known_resources(changes)
        _check_apps(changes)

    async def change(database: Database, now: datetime) -> Client:
        with _refused_as_wrong_call():
            await refuse_wrong_receiver(changes, NameResolver())
            return await change_client(database, client_name, changes, reserved=reserved, now=now)

    changed = with_database(change)
    rows = [("client_id", client_name), *((name, getattr(changed, name)) for name in changes if name != "logo")]
    print_table((word(name), value) for name, value in rows)


@clients.command()
@_name_argument
@click.option("--now", "at_once", is_flag=True, help="Refuse the former secret at once, because it was stolen.")
@json_option
def secret_command(client_name: str, at_once: bool, as_json: bool) -> None:
    """Renew a client's secret, and print it, this once. The former one works for 24 hours more."""

    async def renew(database: Database, now: datetime) -> tuple[Credentials, Sequence[str]]:
        try:
            return await renew_secret(database, client_name, at_once=at_once, now=now)
        except InvalidRequest:
            text = "{name} is public, and has no secret"
            raise Failed(text, name=client_name) from None

    _show(client_name, *with_database(renew), as_json=as_json)


@clients.command()
@json_option
def list_command(as_json: bool) -> None:
    """Print every client, service or site, without its secret."""
    found: list[dict[str, Any]] = []
    for client in with_database(lambda database, _: database.rows(ALL_CLIENTS)):
        fields = client.model_dump(include={*Client.model_fields} - {"name"} if client.is_site else {"scopes"})
        found.append(
            {"client_id": client.name, "created_at": client.created_at.isoformat(timespec="seconds"), **fields}
        )
    columns = table(
        found,
        "client_id created_at scopes",
        created_at=lambda row: to_the_second(datetime.fromisoformat(row["created_at"])),
    )
    show(all_of(found), columns, as_json=as_json)


@clients.command()
@_name_argument
def remove_command(client_name: str) -> None:
    """Remove a client, service or site, which is refused from now on.

    Then end a site's sessions, and print how many are left. If this is interrupted, the service ends them.
    """

    async def remove(database: Database, now: datetime) -> None:
        await remove_client(database, client_name, now=now)
        click.echo(say("removed {name}", name=client_name))
        async for left in end_sessions_left(database, client_name):
            click.echo(say("{left} sessions left", left=left))

    with_database(remove)


def _reserved() -> Sequence[str]:
    """The names that a site must not have, because its tokens could be mistaken for others: `serve` would not start."""
    audience = read_settings(ClientCommandSettings).audience
    return with_database(lambda database, _: reserved_names(database, audience))


def _with_known_resources(values: dict[str, Any]) -> dict[str, Any]:
    """The fields, with each resource as the settings spell it. Raises: WrongClient, for another one."""
    known = read_settings(ClientCommandSettings).resources if values.get("resources") else ()
    return dict(with_known_resources(values, known))


def _check_apps(values: Mapping[str, Any]) -> None:
    """Refuse fields that name an app of another kind. Raises: WrongClient, Failed."""
    if refers_to_apps(values):
        settings = read_settings(ClientCommandSettings)
        stored = with_database(lambda database, _: stored_apps(database))
        kinds = {row.app_id: row.fields.get("kind", "mini_program") for row in stored}
        refuse_wrong_apps(values, kinds | {app.app_id: app.kind for app in settings.apps})


def _show(name: str, credentials: Credentials | None, scopes: Sequence[str], *, as_json: bool) -> None:
    secret = None if credentials is None else credentials.client_secret
    note = Text("A public client has no secret.") if secret is None else SHOWN_ONCE
    rows = [("client_id", name), *([] if secret is None else [("client_secret", secret)]), ("scopes", ",".join(scopes))]
    answer = {"client_id": name, "client_secret": secret, "scopes": scopes}
    show(answer, [(word(field), value) for field, value in rows], note, as_json=as_json)
