"""`wxauth keys`: manage the keys that sign access tokens and id_tokens."""

from collections.abc import Awaitable, Callable
from datetime import datetime

import click

from wxauth.server.cli.printing import Failed, json_option, show
from wxauth.server.cli.resources import T, read_settings, with_database
from wxauth.server.core.database import Database
from wxauth.server.core.settings import Settings
from wxauth.server.core.trail import OPERATOR
from wxauth.server.keys.keyring import KeyAnswer, KeyRing, key_ring_of, list_published
from wxauth.server.keys.models import NoSuchKey, StoredSigningKey


@click.group()
def keys() -> None:
    """Manage the keys that sign access tokens and id_tokens."""


@keys.command()
@json_option
def list_command(as_json: bool) -> None:
    """Print every published key: former, signing and next ones.

    ES256 keys sign access tokens, RS256 keys id_tokens.
    """

    async def ask(database: Database, now: datetime) -> list[KeyAnswer]:
        of_access_tokens, of_id_tokens = await list_published(database, now=now)
        return of_access_tokens + of_id_tokens

    def text(value: str | datetime | None) -> str | None:
        return value if isinstance(value, str | None) else value.isoformat(timespec="seconds")

    rows = [{name: text(value) for name, value in key.items()} for key in with_database(ask)]  # type: ignore[arg-type]
    header = ("KID", "ALG", "STATE", "SIGNS_FROM", "PUBLISHED_UNTIL")
    show(rows, [header, *(tuple(cell or "-" for cell in row.values()) for row in rows)], as_json=as_json)


@keys.command()
@json_option
def rotate_command(as_json: bool) -> None:
    """Publish a new key. It signs once every cache has had time to fetch it.

    If a key is waiting already, none is made. Where there are websites, the keys of id_tokens are rotated too.
    """
    key = _with_key_ring(lambda keys: keys.rotate(by=OPERATOR))
    row = {"kid": key.kid, "signs_from": key.activates_at.isoformat(timespec="seconds")}
    show(row, "{kid} signs from {signs_from}".format(**row), as_json=as_json)


# An id may begin with "-", even with "-h".
@keys.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("kid")
@json_option
def withdraw_command(kid: str, as_json: bool) -> None:
    """Withdraw a stolen key at once: all tokens that it signed are refused.

    wxauth refuses them within seconds, guards within five minutes. Sessions go on: the next refresh gives a token
    signed by another key. If KID is the key that signs now, the waiting key replaces it at once; if none is waiting, a
    new key does.
    """

    async def withdraw(keys: KeyRing) -> StoredSigningKey:
        try:
            return await keys.withdraw(kid, by=OPERATOR)
        except NoSuchKey:
            raise Failed("there is no published key with that id: see 'wxauth keys list'") from None

    signs = _with_key_ring(withdraw)
    show({"kid": kid, "signing": signs.kid}, f"{kid} is withdrawn; {signs.kid} signs now", as_json=as_json)


def _with_key_ring(ask: Callable[[KeyRing], Awaitable[T]]) -> T:
    """Return the result of `ask`, called with the stored keys. Requires all settings. Raises: Failed."""
    settings = read_settings(Settings)
    return with_database(lambda database, now: ask(key_ring_of(settings, database, lambda: now)))
