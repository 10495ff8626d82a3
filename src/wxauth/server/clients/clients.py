"""OAuth clients: the operator's own sites, which may log people in.

All of them share one audience, so a sibling accepts every site's tokens. For that reason, sites of others must never be
added.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, get_args

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from wxauth.errors import FieldError, InvalidRequest, NameTaken, NotFound
from wxauth.server.clients import rows as client_rows
from wxauth.server.clients import service_clients as clients
from wxauth.server.clients.rows import ID_TOKEN_ALG, IdTokenAlg, OAuthClient, StoredClient, WholeClient
from wxauth.server.clients.service_clients import (
    NAME_TAKEN,
    NO_SUCH_CLIENT,
    Credentials,
    Scope,
    in_order,
    is_own_name,
    new_secret,
)
from wxauth.server.clients.uris import check_uri, origin_of
from wxauth.server.core.database import Database
from wxauth.server.core.settings import Settings
from wxauth.server.core.trail import OPERATOR, Actor, EventType, record_event

SCOPES: Final = ("openid", "profile", "phone", "email", "roles", "offline_access")
"""The scopes that a site may have."""
DEFAULT_SCOPES: Final = ("openid", "profile")
ID_TOKEN_ALGS: Final[tuple[str, ...]] = get_args(IdTokenAlg)

_APP_ID: Final = re.compile(r"wx[0-9a-z]{16}")
# Neither controls nor lone surrogates, nor what reorders the text around it (Unicode, UAX 9): the phone shows a title.
_TITLE: Final = (
    r"(?=.*\S)[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]{1,64}"
)
_FORMS: Final = {
    "title": (re.compile(_TITLE), "wants 1 to 64 characters, not only spaces, none of them a control"),
    "app_id": (re.compile(r"[A-Za-z0-9_-]{1,64}"), "wants the app_id of a mini-program"),
    "email_domain": (re.compile(r"(?=.{1,200}\Z)[a-z0-9-]+(\.[a-z0-9-]+)+"), "wants a domain like example.com"),
    "id_token_alg": (re.compile("|".join(ID_TOKEN_ALGS)), f"must be one of {', '.join(ID_TOKEN_ALGS)}"),
}
_SAY_MORE_OF_A_SITE: Final = (
    "logout_uris",
    "is_public",
    "title",
    "app_id",
    "near",
    "user_code",
    "email_domain",
    "id_token_alg",
)
_NO_SITE: Final = OAuthClient(
    name="",
    title="",
    app_id=None,
    scopes=(),
    redirect_uris=(),
    logout_uris=(),
    is_public=False,
    may_scan=False,
    is_near=False,
    takes_user_codes=False,
    email_domain=None,
)


class WrongClient(InvalidRequest):
    """A client cannot be what it is asked to be: the field that says so, and what is wrong with it."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}", errors=[FieldError(field, text)])


class Options(TypedDict):
    """What a client is asked to be, by the names of the command's options."""

    title: str | None
    scopes: list[str]
    is_public: bool
    device: bool
    redirect_uris: list[str]
    logout_uris: list[str]
    app_id: str | None
    near: bool
    user_code: bool
    email_domain: str | None
    id_token_alg: IdTokenAlg | None


def described(client: WholeClient) -> Options:
    """What the client is. A service client that is no site has none of what makes one."""
    site = client.site or _NO_SITE
    return {
        "title": site.title or None,
        "scopes": [*in_order(client.siblings_scopes), *site.scopes],
        "is_public": site.is_public,
        "device": site.may_scan,
        "redirect_uris": list(site.redirect_uris),
        "logout_uris": list(site.logout_uris),
        "app_id": site.app_id,
        "near": site.is_near,
        "user_code": site.takes_user_codes,
        "email_domain": site.email_domain,
        "id_token_alg": site.id_token_alg if client.site else None,
    }


def asked_for(name: str, options: Mapping[str, Any], *, reserved: Collection[str] = ()) -> WholeClient:
    """The client that these options make.

    Args:
        name: The client's name.
        options: Some of `Options`. An absent one is as good as null, false or an empty list.
        reserved: Names that no site may have, beside those that look like an app's: see `names_of_others`.

    Raises: WrongClient.
    """
    for field, (form, wanted) in _FORMS.items():
        if options.get(field) is not None and not form.fullmatch(options[field]):
            raise WrongClient(field, wanted)
    redirect_uris, logout_uris = _uris("redirect_uris", options), _uris("logout_uris", options)
    is_public, may_scan = bool(options.get("is_public")), bool(options.get("device"))
    scopes = options.get("scopes") or ()
    is_site = bool(redirect_uris) or may_scan
    known = (*Scope, *SCOPES) if is_site else tuple(Scope)
    if unknown := [scope for scope in scopes if scope not in known]:
        is_sites = unknown[0] in SCOPES
        raise WrongClient("scopes", f"{unknown[0]} is for a site" if is_sites else f"wants some of {', '.join(known)}")
    if not is_site:
        for field in _SAY_MORE_OF_A_SITE:
            if options.get(field):
                raise WrongClient(field, "is for a site: one with a redirect URI, or with the device grant")
        return WholeClient(name=name, siblings_scopes=in_order(scopes or clients.DEFAULT_SCOPES), site=None)
    if is_public and may_scan:
        raise WrongClient("is_public", "excludes the device grant: anybody could show a code in its name")
    if is_public and in_order(scopes):
        raise WrongClient("scopes", f"{in_order(scopes)[0]} is for services with a secret")
    if logout_uris and not redirect_uris:
        raise WrongClient("logout_uris", "wants a redirect URI beside it")
    if _APP_ID.fullmatch(name):
        raise WrongClient("name", "cannot be a site's: it looks like the app_id of a mini-program")
    if name in reserved:
        raise WrongClient("name", "cannot be a site's: it is the audience's or an app's, and tokens would be confused")
    site = OAuthClient(
        name=name,
        title=options.get("title") or name,
        app_id=options.get("app_id"),
        scopes=[scope for scope in SCOPES if scope in scopes] or DEFAULT_SCOPES,
        redirect_uris=redirect_uris,
        logout_uris=logout_uris,
        is_public=is_public,
        may_scan=may_scan,
        is_near=bool(options.get("near")),
        takes_user_codes=bool(options.get("user_code")),
        email_domain=options.get("email_domain"),
        id_token_alg=options.get("id_token_alg") or ID_TOKEN_ALG,
    )
    return WholeClient(name=name, siblings_scopes=in_order(scopes), site=site)


async def add_client(
    database: Database, client: WholeClient, *, by: Actor = OPERATOR, now: datetime
) -> Credentials | None:
    """Add a client that was asked for. Its credentials; None for a public one, which has no secret.

    Raises: NameTaken, StorageUnavailable.
    """
    scopes = in_order(client.siblings_scopes)
    if client.site is None:
        return await clients.add_client(database, client.name, scopes=scopes, by=by, now=now)
    return await add_oauth_client(database, client.site, siblings_scopes=scopes, by=by, now=now)


async def change_client(
    database: Database,
    name: str,
    changes: Mapping[str, Any],
    *,
    reserved: Collection[str] = (),
    by: Actor = OPERATOR,
    now: datetime,
) -> StoredClient:
    """Change these options of a client; the others stay. A site's sessions go on, with the scopes that are left.

    Args:
        database: Where it is stored.
        name: The client's name.
        changes: Some of `Options`. Null, false or empty takes back what may be absent.
        reserved: As in `asked_for`.
        by: Who changes it.
        now: The time.

    Raises: NotFound, WrongClient, StorageUnavailable.
    """
    async with database.begin() as transaction:
        client = await client_rows.lock_client(transaction, name)
        if client is None:
            raise NotFound(NO_SUCH_CLIENT)
        before = described(client)
        wanted = asked_for(name, _merged(before, changes, is_site=client.site is not None), reserved=reserved)
        after = described(wanted)
        if fields := [field for field, value in after.items() if value != before[field]]:  # type: ignore[literal-required]
            client = replace(client, siblings_scopes=wanted.siblings_scopes, site=wanted.site)
            await client_rows.store_change(transaction, client)
            data = {"name": name, "scopes": after["scopes"], "fields": fields}
            await record_event(transaction, EventType.CLIENT_CHANGED, by=by, at=now, data=data)
    return client


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

    Raises: NameTaken, StorageUnavailable.
    """
    # A public client's secret is thrown away: nobody will ever know a secret that fits the hash.
    secret, secret_hash = new_secret()
    if not await client_rows.store_oauth_client(
        database, client, secret_hash=secret_hash, siblings_scopes=siblings_scopes, by=by, now=now
    ):
        raise NameTaken(NAME_TAKEN)
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
    """Store a client for a page that the service itself serves. Each start stores it as it is given here.

    It is public. Its name is one that no command can add, and its scopes may be some that no command can give.

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


def names_of_others(settings: Settings) -> Sequence[str]:
    """The audience and the apps. Tokens of a site that had such a name would be taken for theirs."""
    return [settings.audience, *(app.app_id for app in settings.apps)]


async def clashing_clients(database: Database, settings: Settings) -> Sequence[str]:
    """The OAuth clients that are named like the audience or an app. Their tokens would be taken for others.

    Raises: StorageUnavailable.
    """
    return await client_rows.those_named(database, names_of_others(settings))


def origin_shown(client: OAuthClient) -> str | None:
    """The site's origin, to show to the person who is asked; None if the site has no redirect URI."""
    return origin_of(client.redirect_uris[0]) if client.redirect_uris else None


def _uris(field: str, options: Mapping[str, Any]) -> list[str]:
    try:
        return list(dict.fromkeys(check_uri(uri) for uri in options.get(field) or ()))
    except ValueError as exc:
        raise WrongClient(field, str(exc)) from None


def _merged(before: Options, changes: Mapping[str, Any], *, is_site: bool) -> Mapping[str, Any]:
    after: dict[str, Any] = {**before, **changes}
    # A public client has no secret that it could go on with; a confidential one would leave sessions that it proved by
    # its secret to anybody who knows its name.
    if bool(after["is_public"]) != before["is_public"]:
        raise WrongClient("is_public", "cannot be changed: remove the client, and add it anew")
    if is_site and not (after["redirect_uris"] or after["device"]):
        raise WrongClient("redirect_uris", "wants one, unless there is the device grant: a site remains a site")
    return after
