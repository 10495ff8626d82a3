"""`wxauth clients`: the services that may ask, and the sites that may log people in."""

from typing import TYPE_CHECKING, Any

import click

from wxauth.cli.asking import Failed, json_option, print_table, with_database
from wxauth.cli.oauth_options import SCOPES, asked_for, oauth_options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from wxauth.core.database import Database
    from wxauth.core.tables import ServiceClient
    from wxauth.oauth.client_rows import OAuthClient
    from wxauth.siblings.clients import Credentials


@click.group()
def clients() -> None:
    """The services that may ask about tokens and users and read events, and the sites that may log people in."""


def _client_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    from wxauth.siblings.clients import ACTORS, is_name

    if value in ACTORS:
        raise click.BadParameter(f"{value} is a name that the audit trail has for another.")
    if not is_name(value):
        raise click.BadParameter("wants a-z, 0-9, _ and -, the first a letter or digit, at most 64.")
    return value


@clients.command("add")
@click.argument("name", callback=_client_name)
@oauth_options
@json_option
def add_client(name: str, as_json: bool, **options: Any) -> None:
    """Let a service in, by HTTP Basic as NAME and with a secret that is shown this once.

    With --redirect-uri or --device it is a site of yours that logs people in by scan, NAME being its client_id.
    """
    from wxauth.oauth.clients import add_oauth_client
    from wxauth.siblings.clients import NameTaken, add_client

    scopes, site = asked_for(name, options)

    async def add(database: "Database", now: "datetime") -> "Credentials | None":
        if site is None:
            return await add_client(database, name, scopes=scopes, now=now)
        return await add_oauth_client(database, site, siblings_scopes=scopes, now=now)

    try:
        credentials = with_database(add)
    except NameTaken:
        raise Failed(f"there is a service client {name} already. 服务客户端 {name} 已存在。") from None
    _show(name, credentials, [*scopes, *(site.scopes if site else ())], as_json=as_json)


@clients.command("set")
@click.argument("name", callback=_client_name)
@click.option(
    "--scope",
    "asked",
    multiple=True,
    required=True,
    type=click.Choice(SCOPES),
    help="What it may do; repeated for several.",
)
def set_client(name: str, asked: tuple[str, ...]) -> None:
    """Let a service do this from now on, and nothing else."""
    from wxauth.siblings.clients import NoSuchClient, change_client, in_order

    scopes = in_order(asked)
    try:
        with_database(lambda database, now: change_client(database, name, scopes=scopes, now=now))
    except NoSuchClient:
        raise _no_such_client(name) from None
    click.echo(f"{name} may {', '.join(scopes)}")


@clients.command("secret")
@click.argument("name", callback=_client_name)
@click.option("--now", "at_once", is_flag=True, help="Refuse the former secret at once: it has been stolen.")
@json_option
def renew_secret(name: str, at_once: bool, as_json: bool) -> None:
    """Give a service another secret, shown this once. The former one works for 24 hours more."""
    from wxauth.siblings.clients import NoSuchClient, renew_secret

    try:
        renewed = with_database(lambda database, now: renew_secret(database, name, at_once=at_once, now=now))
    except NoSuchClient:
        raise _no_such_client(name) from None
    _show(name, *renewed, as_json=as_json)


@clients.command("list")
@json_option
def list_clients(as_json: bool) -> None:
    """Print every service client, without its secret."""
    import json

    from wxauth.oauth.client_rows import all_oauth_clients
    from wxauth.oauth.clients import described
    from wxauth.siblings.clients import in_order, list_clients

    async def ask(database: "Database", _: "datetime") -> "tuple[Sequence[ServiceClient], dict[str, OAuthClient]]":
        sites = {site.name: site for site in await all_oauth_clients(database)}
        return await list_clients(database), sites

    everybody, sites = with_database(ask)
    rows = [
        (
            client.name,
            client.created_at.isoformat(timespec="seconds"),
            [*in_order(client.scopes), *(sites[client.name].scopes if client.name in sites else ())],
        )
        for client in everybody
    ]
    if as_json:
        told = [
            {
                "client_id": name,
                "created_at": created_at,
                **(described(sites[name]) if name in sites else {}),
                "scopes": scopes,
            }
            for name, created_at, scopes in rows
        ]
        click.echo(json.dumps(told, ensure_ascii=False))
    else:
        shown = [(name, created_at, ",".join(scopes)) for name, created_at, scopes in rows]
        print_table([("CLIENT_ID", "CREATED_AT", "SCOPES"), *shown])


@clients.command("remove")
@click.argument("name", callback=_client_name)
def remove_client(name: str) -> None:
    """Refuse a service client from now on."""
    from wxauth.siblings.clients import NoSuchClient, remove_client

    try:
        with_database(lambda database, now: remove_client(database, name, now=now))
    except NoSuchClient:
        raise _no_such_client(name) from None
    click.echo(f"removed {name}")


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
