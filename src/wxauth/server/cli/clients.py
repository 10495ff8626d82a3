"""`wxauth clients`: the services that may ask, and the sites that may log people in."""

from typing import TYPE_CHECKING, Any

import click

from wxauth.server.cli.asking import Failed, json_option, print_table, read_settings, with_database
from wxauth.server.cli.oauth_options import changes_in, client_options, refused_as_wrong_call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wxauth.server.clients.clients import Credentials


@click.group()
def clients() -> None:
    """The services that may ask about tokens and users and read events, and the sites that may log people in."""


def _client_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    from wxauth.server.clients.clients import check_name

    try:
        return check_name(value)
    except ValueError as exc:
        raise click.BadParameter(f"{exc}.") from None


@clients.command("add")
@click.argument("name", callback=_client_name)
@client_options(is_change=False)
@click.option("--public", "is_public", is_flag=True, help="It keeps no secret: a page, a program.")
@json_option
def add_client(name: str, as_json: bool, **options: Any) -> None:
    """Let a service in. It authenticates by HTTP Basic as NAME, with a secret that is shown this once.

    With --redirect-uri or --device, it is a site of yours that logs people in by scan. NAME is its client_id.
    """
    from wxauth.errors import NameTaken
    from wxauth.server.clients.clients import add_client, asked_for

    reserved = _reserved()
    with refused_as_wrong_call():
        client = asked_for(name, options, reserved=reserved)
    try:
        credentials = with_database(lambda database, now: add_client(database, client, now=now))
    except NameTaken:
        raise Failed(f"there is a service client {name} already. 服务客户端 {name} 已存在。") from None
    _show(name, credentials, client.scopes, as_json=as_json)


@clients.command("set")
@click.argument("name", callback=_client_name)
@client_options(is_change=True)
def set_client(name: str, **options: Any) -> None:
    """Change a service or a site as the options say; the rest stays.

    An option that may be repeated replaces the whole list: what is not named again is taken away. Running services know
    it at once. A site's sessions go on, with those of their scopes that are left.
    """
    from wxauth.errors import NotFound
    from wxauth.server.clients.clients import change_client

    changes, reserved = changes_in(options), _reserved()
    try:
        with refused_as_wrong_call():
            changed = with_database(
                lambda database, now: change_client(database, name, changes, reserved=reserved, now=now)
            )
    except NotFound:
        raise _no_such_client(name) from None
    click.echo(f"scopes of {name}: {', '.join(changed.scopes)}")


@clients.command("secret")
@click.argument("name", callback=_client_name)
@click.option("--now", "at_once", is_flag=True, help="Refuse the former secret at once: it has been stolen.")
@json_option
def renew_secret(name: str, at_once: bool, as_json: bool) -> None:
    """Give a service another secret, shown this once. The former one works for 24 hours more."""
    from wxauth.errors import InvalidRequest, NotFound
    from wxauth.server.clients.clients import renew_secret

    try:
        renewed = with_database(lambda database, now: renew_secret(database, name, at_once=at_once, now=now))
    except NotFound:
        raise _no_such_client(name) from None
    except InvalidRequest:
        raise Failed(f"{name} is public, and has no secret. {name} 是公开客户端，没有密钥。") from None
    _show(name, *renewed, as_json=as_json)


@clients.command("list")
@json_option
def list_clients(as_json: bool) -> None:
    """Print every service client, without its secret."""
    import json

    from wxauth.server.clients.rows import all_clients
    from wxauth.server.core.tables import Client

    told: list[dict[str, Any]] = []
    for client in with_database(lambda database, _: all_clients(database)):
        shown = client.model_dump(include={*Client.model_fields} - {"name"} if client.is_site else {"scopes"})
        told.append({"client_id": client.name, "created_at": client.created_at.isoformat(timespec="seconds"), **shown})
    if as_json:
        click.echo(json.dumps(told, ensure_ascii=False))
    else:
        lines = [(client["client_id"], client["created_at"], ",".join(client["scopes"])) for client in told]
        print_table([("CLIENT_ID", "CREATED_AT", "SCOPES"), *lines])


@clients.command("remove")
@click.argument("name", callback=_client_name)
def remove_client(name: str) -> None:
    """Refuse a service client from now on."""
    from wxauth.errors import NotFound
    from wxauth.server.clients.clients import remove_client

    try:
        with_database(lambda database, now: remove_client(database, name, now=now))
    except NotFound:
        raise _no_such_client(name) from None
    click.echo(f"removed {name}")


def _reserved() -> "Sequence[str]":
    """The names with which a site's tokens would be taken for others, so that `serve` would not start."""
    from wxauth.server.clients.clients import names_of_others
    from wxauth.server.core.settings import AudienceSettings

    audience = read_settings(AudienceSettings).audience
    return with_database(lambda database, _: names_of_others(database, audience))


def _show(name: str, credentials: "Credentials | None", scopes: "Sequence[str]", *, as_json: bool) -> None:
    import json

    secret = None if credentials is None else credentials.client_secret
    if as_json:
        click.echo(json.dumps({"client_id": name, "client_secret": secret, "scopes": scopes}))
        return
    shown = [] if secret is None else [("client_secret", secret)]
    print_table([("client_id", name), *shown, ("scopes", ",".join(scopes))])
    if secret is None:
        click.echo("A public client has no secret. 公开客户端没有密钥。", err=True)
    else:
        click.echo("Keep the secret, it is not shown again. 请妥善保存，密钥不会再次显示。", err=True)


def _no_such_client(name: str) -> Failed:
    return Failed(f"there is no service client {name}. 没有服务客户端 {name}。")
