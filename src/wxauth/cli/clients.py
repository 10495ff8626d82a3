"""The command `wxauth clients`, which manages services that verify wxauth's tokens, and sites that log users in."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import click

from wxauth.cli.options import checked, read_picture, takes
from wxauth.cli.printing import (
    SHOWN_ONCE,
    Failed,
    WrongCall,
    echo,
    json_option,
    print_table,
    sentence,
    show,
    show_items,
    to_the_second,
)
from wxauth.cli.resources import T, read_settings, with_database
from wxauth.clients.clients import ClientChanges, Credentials, end_sessions_left, remove_client, renew_secret
from wxauth.clients.models import DEFAULT_SITE_SCOPES, SITE_SCOPE_NAMES, AddedClient, Client, Scope
from wxauth.clients.queries import ALL_CLIENTS
from wxauth.clients.rules import WrongClient, build_client, check_name
from wxauth.core.database import Database
from wxauth.i18n import Text, WrongValue, lazy_gettext as _
from wxauth.i_json import parse_typed
from wxauth.outbound.urls import NameResolver
from wxauth.settings.settings import ClientCommandSettings
from wxauth.terminal import word
from wxauth.web.pages import all_of
from wxauth_guard.errors import InvalidRequest

# The help texts of these options differ from the descriptions of their fields.
_CLAIM: Final = (
    "A claim in the site's tokens, such as tier=$attributes.tier. If VALUE is JSON, it is stored as JSON, except "
    "for a number that some programs would round or print differently. Repeatable."
)
_NO_PKCE: Final = "Make PKCE optional. Use this option only if the site has a secret and checks the nonce."
_LOGO: Final = (
    "The site's picture on the login pages and the phone: a PNG, JPEG or WebP file of up to 32 KiB and 1024 × 1024 "
    "pixels. Default: none."
)
_SCOPE: Final = (
    f"The client's scopes. For a service: {', '.join(Scope)} (default: introspect). For a site: "
    f"{', '.join(SITE_SCOPE_NAMES)} (default: {' and '.join(DEFAULT_SITE_SCOPES)}). Repeatable."
)


def _claims(values: tuple[str, ...]) -> dict[str, Any] | None:
    template: dict[str, Any] = {}
    for claim in values:
        if not claim:  # an empty string alone results in an empty template, which removes all claims
            continue
        name, equals, value = claim.partition("=")
        if not equals:
            raise WrongValue(_("must have the form NAME=VALUE"))
        template[name] = parse_typed(value)
    return template if values else None


def _option_of(field: str) -> str:
    if field == "name":
        return "NAME"
    if field == "pkce":
        return "--no-pkce"
    # For example, the fields `is_public`, `account_app_id` and `redirect_uris` become --public, --account and
    # --redirect-uri.
    name = field.removeprefix("is_").removesuffix("_id").removesuffix("_app")
    name = name if name.endswith("ss") else name.removesuffix("s")
    return f"--{name.replace('_', '-')}"


_ARGUMENTS_BY_FIELD: Final[Mapping[str, Mapping[str, Any]]] = {
    "scopes": {
        "multiple": True,
        "type": click.Choice([*map(str, Scope), *SITE_SCOPE_NAMES]),
        "metavar": "SCOPE",
        "help": _SCOPE,
    },
    "redirect_uris": {"multiple": True},
    "logout_uris": {"multiple": True},
    "resources": {"multiple": True, "metavar": "URL"},
    "id_token_ttl": {"metavar": "SECONDS"},
    "pkce": {"type": None, "flag_value": "optional", "help": _NO_PKCE},
    "logo": {"callback": checked(read_picture), "metavar": "FILE", "help": _LOGO},
    "claims": {"multiple": True, "callback": checked(_claims), "metavar": "NAME=VALUE", "help": _CLAIM},
}
_REPLACEMENTS: Final[Mapping[str, Any]] = {
    **{field: {"option": _option_of(field), **_ARGUMENTS_BY_FIELD.get(field, {})} for field in Client.model_fields},
    "name": None,
}


def _with_option_errors(use: Callable[[Database, datetime], Awaitable[T]]) -> T:
    """Call `use` as `with_database` does. If a field of a client is refused, the error names its option."""

    async def run(database: Database, now: datetime) -> T:
        # This conversion comes first, because `with_database` would convert a WrongClient to Failed.
        with _refused_as_wrong_call():
            return await use(database, now)

    return with_database(run)


@contextmanager
def _refused_as_wrong_call() -> Iterator[None]:
    try:
        yield
    except WrongClient as exc:
        error = exc.errors[0]  # a WrongClient has exactly one error
        raise click.BadParameter(sentence(error.message), param_hint=_option_of(error.field)) from None


_name_argument = click.argument("client_name", metavar="NAME", callback=checked(check_name))


@click.group()
def clients() -> None:
    """Manage services and sites that use wxauth.

    Services verify tokens, look up users and read events. Users log in to sites.
    """


@clients.command()
@_name_argument
@takes(Client, **_REPLACEMENTS)
@json_option
def add_command(client_name: str, fields: dict[str, Any]) -> None:
    """Add a service or a site, and print its secret.

    The secret is shown only once. A service authenticates with HTTP Basic as NAME. With --redirect-uri or --device,
    NAME is the client_id of a site where users log in with a QR code.
    """
    with _refused_as_wrong_call():
        build_client(client_name, fields)  # a wrong call is refused before the database is used
    settings = read_settings(ClientCommandSettings)

    async def add(database: Database, now: datetime) -> tuple[Client, Credentials | None]:
        # If a removed client had this name, its sessions must end before the name is used again.
        async for _sessions_left in end_sessions_left(database, client_name):
            pass
        return await ClientChanges(database, NameResolver(), settings).add(client_name, fields, now=now)

    client, credentials = _with_option_errors(add)
    _show_credentials(client_name, credentials, client.scopes, *_notes_about(client))


@clients.command()
@_name_argument
# `takes` puts the value of this option into `fields`, too, because the option has the name of a field.
@click.option("--pkce", "pkce", flag_value="required", help="Require PKCE again.")
@takes(Client, clear="", **{**_REPLACEMENTS, "is_public": None})  # an existing client cannot become public
def set_command(client_name: str, fields: dict[str, Any]) -> None:
    """Change the given fields of a service or a site.

    A repeatable option replaces the whole list, and an empty value clears a field. The change takes effect at once. If
    you remove scopes, a site's sessions continue without these scopes.
    """
    if not fields:
        raise WrongCall(_("specify --scope or another option"))
    changes = {name: _new_value(value) for name, value in fields.items()}
    settings = read_settings(ClientCommandSettings)
    changed = _with_option_errors(
        lambda database, now: ClientChanges(database, NameResolver(), settings).change(client_name, changes, now=now)
    )
    shown = [name for name in changes if name != "logo"]  # a logo is a picture, which a table cannot show
    rows = [(word("client_id"), client_name)]
    rows += [(word(name), getattr(changed, name)) for name in shown]
    print_table(rows)
    if "device" in changes:
        for note in _notes_about(changed):
            echo(note, err=True)


def _notes_about(client: Client) -> list[Text]:
    if client.user_code or not client.device:
        return []
    note = _(
        "Ready-made tools, such as psql or kubelogin, show a login code instead of a QR code. For such a tool, run "
        "'wxauth clients set {name} --user-code'.",
        name=client.name,
    )
    return [note]


@clients.command()
@_name_argument
@click.option(
    "--now",
    "at_once",
    is_flag=True,
    help="Reject the previous secret at once. Use this option if the previous secret was stolen.",
)
@json_option
def secret_command(client_name: str, at_once: bool) -> None:
    """Rotate the secret of a service or a site, and print the new secret.

    The secret is shown only once. The previous secret works for another 24 hours.
    """

    async def renew(database: Database, now: datetime) -> tuple[Credentials, Sequence[str]]:
        try:
            return await renew_secret(database, client_name, at_once=at_once, now=now)
        except InvalidRequest:
            text = _("{name} is a public client, which has no secret", name=client_name)
            raise Failed(text) from None

    credentials, scopes = with_database(renew)
    _show_credentials(client_name, credentials, scopes)


@clients.command()
@json_option
def list_command() -> None:
    """List all services and sites, without their secrets."""
    all_clients = with_database(lambda database, _now: database.rows(ALL_CLIENTS))
    show_items(
        all_clients,
        "client_id created_at scopes",
        as_json=all_of(map(_json_of, all_clients)),
        client_id=lambda client: client.name,
        created_at=lambda client: to_the_second(client.created_at),
    )


@clients.command()
@_name_argument
def remove_command(client_name: str) -> None:
    """Remove a service or a site. wxauth then rejects all of its requests.

    The command also ends the site's sessions, and prints how many are left. If you interrupt the command, the running
    wxauth service ends the remaining sessions.
    """

    async def remove(database: Database, now: datetime) -> None:
        await remove_client(database, client_name, now=now)
        echo(_("removed {name}", name=client_name))
        async for sessions_left in end_sessions_left(database, client_name):
            echo(_("sessions left: {left}", left=sessions_left))

    with_database(remove)


# For a client that is not a site, the fields that describe a site are omitted, and an empty `resources`, too.
def _json_of(client: AddedClient) -> dict[str, Any]:
    if client.is_site:
        fields = {*Client.model_fields} - {"name"}
    elif client.resources:
        fields = {"scopes", "resources"}
    else:
        fields = {"scopes"}
    created_at = client.created_at.isoformat(timespec="seconds")
    return {"client_id": client.name, "created_at": created_at, **client.model_dump(include=fields)}


def _new_value(value: Any) -> Any:
    if isinstance(value, list):
        return [each for each in value if each]  # an empty string alone results in an empty list
    return None if value == "" else value  # None clears the field


def _show_credentials(name: str, credentials: Credentials | None, scopes: Sequence[str], *notes: Text) -> None:
    secret = None if credentials is None else credentials.client_secret
    note = _("A public client has no secret.") if secret is None else SHOWN_ONCE
    answer = {"client_id": name, "client_secret": secret, "scopes": scopes}
    show(answer, [(word(field), value) for field, value in answer.items() if value is not None], note, *notes)
