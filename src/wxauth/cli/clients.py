"""`wxauth clients`: the services that may ask."""

import click

from wxauth.cli.asking import Failed, json_option, print_table, with_database


@click.group()
def clients() -> None:
    """The services that may ask whether a token is good."""


def _client_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    from wxauth.siblings.clients import ACTORS, is_name

    if value in ACTORS:
        raise click.BadParameter(f"{value} is a name that the audit trail has for another.")
    if not is_name(value):
        raise click.BadParameter("wants a-z, 0-9, _ and -, the first a letter or digit, at most 64.")
    return value


@clients.command("add")
@click.argument("name", callback=_client_name)
@json_option
def add_client(name: str, as_json: bool) -> None:
    """Let a service in, by HTTP Basic as NAME and with a secret that is shown this once."""
    import json

    from wxauth.siblings.clients import NameTaken, add_client

    try:
        credentials = with_database(lambda database, now: add_client(database, name, now=now))
    except NameTaken:
        raise Failed(f"there is a service client {name} already. 服务客户端 {name} 已存在。") from None
    if as_json:
        click.echo(json.dumps(credentials._asdict()))
        return
    print_table(credentials._asdict().items())
    click.echo("Keep the secret, it is not shown again. 请妥善保存，密钥不会再次显示。", err=True)


@clients.command("list")
@json_option
def list_clients(as_json: bool) -> None:
    """Print every service client, without its secret."""
    import json

    from wxauth.siblings.clients import list_clients

    rows = [
        (client.name, client.created_at.isoformat(timespec="seconds"))
        for client in with_database(lambda database, _: list_clients(database))
    ]
    if as_json:
        click.echo(json.dumps([{"client_id": name, "created_at": created_at} for name, created_at in rows]))
    else:
        print_table([("CLIENT_ID", "CREATED_AT"), *rows])


@clients.command("remove")
@click.argument("name", callback=_client_name)
def remove_client(name: str) -> None:
    """Refuse a service client from now on."""
    from wxauth.siblings.clients import NoSuchClient, remove_client

    try:
        with_database(lambda database, now: remove_client(database, name, now=now))
    except NoSuchClient:
        raise Failed(f"there is no service client {name}. 没有服务客户端 {name}。") from None
    click.echo(f"removed {name}")
