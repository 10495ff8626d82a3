"""`wxauth keys`: what access tokens and id_tokens are signed with."""

from typing import TYPE_CHECKING

import click

from wxauth.server.cli.asking import Answer, Failed, json_option, print_table, read_settings, with_database

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from wxauth.server.core.database import Database
    from wxauth.server.keys.keyring import IdTokenKeys, KeyRing


@click.group()
def keys() -> None:
    """The keys that sign access tokens, and id_tokens for websites."""


@keys.command("list")
@json_option
def list_keys(as_json: bool) -> None:
    """Print every published key: the former ones, the one that signs, the next one.

    ES256 keys sign access tokens, RS256 keys id_tokens.
    """
    import json

    from wxauth.server.keys.both_rings import KeyAnswer, list_published

    async def ask(database: "Database", now: "datetime") -> list[KeyAnswer]:
        of_access_tokens, of_id_tokens = await list_published(database, now=now)
        return of_access_tokens + of_id_tokens

    def text(value: "str | datetime | None") -> str | None:
        return value if isinstance(value, str | None) else value.isoformat(timespec="seconds")

    rows = [{name: text(value) for name, value in key.items()} for key in with_database(ask)]  # type: ignore[arg-type]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        header = ("KID", "ALG", "STATE", "SIGNS_FROM", "PUBLISHED_UNTIL")
        print_table([header, *(tuple(cell or "-" for cell in row.values()) for row in rows)])


@keys.command("rotate")
@json_option
def rotate_keys(as_json: bool) -> None:
    """Publish a new key, which signs once every cache has had time to see it. If a key waits already, none is made.

    The keys of id_tokens are rotated with it, where there are websites.
    """
    import json

    from wxauth.server.core.trail import OPERATOR
    from wxauth.server.keys.both_rings import rotate_both

    key = _with_key_rings(lambda keys, id_token_keys, _now: rotate_both(keys, id_token_keys, by=OPERATOR))
    row = {"kid": key.kid, "signs_from": key.activates_at.isoformat(timespec="seconds")}
    click.echo(json.dumps(row) if as_json else "{kid} signs from {signs_from}".format(**row))


# An id may begin with "-", and with "-h".
@keys.command("withdraw", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("kid")
@json_option
def withdraw_key(kid: str, as_json: bool) -> None:
    """Take back a stolen key at once: all tokens that it signed are refused.

    wxauth refuses them within seconds, guards within five minutes. Sessions go on: the next refresh gives a token that
    another key has signed. If KID is the key that signs now, the waiting key takes its place at once; if none waits, a
    new key does.
    """
    import json

    from wxauth.server.core.trail import OPERATOR
    from wxauth.server.keys.both_rings import withdraw_of_either
    from wxauth.server.keys.succession import NoSuchKey

    try:
        signs = _with_key_rings(
            lambda keys, id_token_keys, now: withdraw_of_either(keys, id_token_keys, kid, by=OPERATOR, now=now)
        )
    except NoSuchKey:
        raise Failed("there is no published key of that id: see 'wxauth keys list'") from None
    row = {"kid": kid, "signing": signs.kid}
    click.echo(json.dumps(row) if as_json else "{kid} is withdrawn; {signing} signs now".format(**row))


def _with_key_rings(ask: "Callable[[KeyRing, IdTokenKeys, datetime], Awaitable[Answer]]") -> "Answer":
    """Call `ask` with the stored keys; the result. All settings must be there. Raises: Failed."""
    from wxauth.server.core.sealing import CannotOpen
    from wxauth.server.core.settings import Settings
    from wxauth.server.service.build import make_key_rings

    settings = read_settings(Settings)

    async def with_rings(database: "Database", now: "datetime") -> "Answer":
        return await ask(*make_key_rings(settings, database, lambda: now), now)

    try:
        return with_database(with_rings)
    except CannotOpen:
        raise Failed(
            "WXAUTH_SECRET_KEY: wants the key that sealed what is stored. 与已存内容所用的密钥不符。"
        ) from None
