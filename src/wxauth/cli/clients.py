"""`wxauth clients`: the services that may ask."""

from functools import partial
from typing import TYPE_CHECKING

import click

from wxauth.cli.asking import Failed, json_option, print_table, with_database

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wxauth.siblings.clients import Credentials, Scope

SCOPES = ("introspect", "access_token", "users", "phones", "events")  # a test compares them with what there is


@click.group()
def clients() -> None:
    """The services that may ask about tokens and users, and read events."""


def _client_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    from wxauth.siblings.clients import ACTORS, is_name

    if value in ACTORS:
        raise click.BadParameter(f"{value} is a name that the audit trail has for another.")
    if not is_name(value):
        raise click.BadParameter("wants a-z, 0-9, _ and -, the first a letter or digit, at most 64.")
    return value


def _scopes(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> "list[Scope]":
    from wxauth.siblings.clients import DEFAULT_SCOPES, in_order

    return in_order(value or DEFAULT_SCOPES)


_scope_option = partial(click.option, "--scope", "scopes", multiple=True, type=click.Choice(SCOPES), callback=_scopes)


@clients.command("add")
@click.argument("name", callback=_client_name)
@_scope_option(help="What it may do; repeated for several. Without any: introspect.")
@json_option
def add_client(name: str, scopes: "list[Scope]", as_json: bool) -> None:
    """Let a service in, by HTTP Basic as NAME and with a secret that is shown this once."""
    from wxauth.siblings.clients import NameTaken, add_client

    try:
        credentials = with_database(lambda database, now: add_client(database, name, scopes=scopes, now=now))
    except NameTaken:
        raise Failed(f"there is a service client {name} already. 服务客户端 {name} 已存在。") from None
    _show(credentials, scopes, as_json=as_json)


@clients.command("set")
@click.argument("name", callback=_client_name)
@_scope_option(required=True, help="What it may do; repeated for several.")
def set_client(name: str, scopes: "list[Scope]") -> None:
    """Let a service do this from now on, and nothing else."""
    from wxauth.siblings.clients import NoSuchClient, change_client

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
    _show(*renewed, as_json=as_json)


@clients.command("list")
@json_option
def list_clients(as_json: bool) -> None:
    """Print every service client, without its secret."""
    import json

    from wxauth.siblings.clients import in_order, list_clients

    rows = [
        (client.name, client.created_at.isoformat(timespec="seconds"), in_order(client.scopes))
        for client in with_database(lambda database, _: list_clients(database))
    ]
    if as_json:
        told = [{"client_id": name, "created_at": created_at, "scopes": scopes} for name, created_at, scopes in rows]
        click.echo(json.dumps(told))
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


def _show(credentials: "Credentials", scopes: "Sequence[Scope]", *, as_json: bool) -> None:
    import json

    if as_json:
        click.echo(json.dumps({**credentials._asdict(), "scopes": scopes}))
        return
    print_table([*credentials._asdict().items(), ("scopes", ",".join(scopes))])
    click.echo("Keep the secret, it is not shown again. 请妥善保存，密钥不会再次显示。", err=True)


def _no_such_client(name: str) -> Failed:
    return Failed(f"there is no service client {name}. 没有服务客户端 {name}。")
