"""OAuth clients: the operator's own sites, which may log people in.

All of them share one audience, so that a sibling takes the tokens of each: somebody else's site is never one.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from wxauth.core.database import Database
from wxauth.core.settings import Settings
from wxauth.core.trail import OPERATOR, Actor
from wxauth.oauth import client_rows
from wxauth.oauth.client_rows import OAuthClient
from wxauth.oauth.uris import origin_of
from wxauth.siblings.clients import Credentials, NameTaken, Scope, is_own_name, new_secret

SCOPES: Final = ("openid", "profile", "phone", "email", "roles", "offline_access")
"""What a site may be added with."""
DEFAULT_SCOPES: Final = ("openid", "profile")
MAX_TITLE: Final = 64

_APP_ID: Final = re.compile(r"wx[0-9a-z]{16}")


class NameReserved(ValueError):
    """A site of this name would be taken for something else; the text says for what."""


def check_name(name: str) -> None:
    """Let pass what may be an OAuth client's name. Raises: NameReserved."""
    if is_own_name(name):
        raise NameReserved("names that begin with wxauth are wxauth's own")
    if _APP_ID.fullmatch(name):
        raise NameReserved("it looks like the app_id of a mini-program")


async def add_oauth_client(
    database: Database,
    client: OAuthClient,
    *,
    siblings_scopes: Sequence[Scope] = (),
    by: Actor = OPERATOR,
    now: datetime,
) -> Credentials | None:
    """A new OAuth client, which may do this as a sibling besides.

    Its credentials, or None for a public one, which has no secret.

    Raises: NameReserved, NameTaken, StorageUnavailable.
    """
    check_name(client.name)
    # A public client's is thrown away: nobody will ever know what fits the hash.
    secret, secret_hash = new_secret()
    if not await client_rows.store_oauth_client(
        database, client, secret_hash=secret_hash, siblings_scopes=siblings_scopes, by=by, now=now
    ):
        raise NameTaken(client.name)
    return None if client.is_public else Credentials(client.name, secret)


async def ensure_own_client(
    database: Database,
    name: str,
    *,
    title: str,
    redirect_uris: Sequence[str],
    logout_uris: Sequence[str] = (),
    scopes: Sequence[str],
    now: datetime,
) -> None:
    """Have a client of our own: public, of a name that no command can add, with scopes that no other can be given.

    For a page that the service itself serves, each time that it starts: what is stored is made as it is said here.

    Raises: ValueError, for a name that is not ours; StorageUnavailable.
    """
    if not is_own_name(name):
        raise ValueError("a client of our own is named wxauth-...")
    client = OAuthClient(
        name=name,
        title=title,
        app_id=None,
        scopes=scopes,
        redirect_uris=redirect_uris,
        logout_uris=logout_uris,
        is_public=True,
        may_scan=False,
        is_near=False,
        takes_user_codes=False,
        email_domain=None,
    )
    await client_rows.ensure_own_client(database, client, secret_hash=new_secret()[1], now=now)


async def clashing_clients(database: Database, settings: Settings) -> Sequence[str]:
    """The OAuth clients whose tokens would be taken for others: named like the audience, or like an app.

    Raises: StorageUnavailable.
    """
    return await client_rows.those_named(database, [settings.audience, *(app.app_id for app in settings.apps)])


def origin_shown(client: OAuthClient) -> str | None:
    """Where the site is, for the person who is asked; None for one without redirect URIs."""
    return origin_of(client.redirect_uris[0]) if client.redirect_uris else None


def described(client: OAuthClient) -> dict[str, Any]:
    """All that is told of a client beside its name, by the names of the command's options."""
    return {
        "title": client.title,
        "scopes": list(client.scopes),
        "is_public": client.is_public,
        "device": client.may_scan,
        "redirect_uris": list(client.redirect_uris),
        "logout_uris": list(client.logout_uris),
        "app_id": client.app_id,
        "near": client.is_near,
        "user_code": client.takes_user_codes,
        "email_domain": client.email_domain,
    }
