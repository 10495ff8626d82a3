"""Clients: services that ask about users, and sites that log people in. Both have a name, and most have a secret.

Sites are the operator's own. All of them share one audience, so a sibling accepts every site's tokens. For that reason,
sites of others must never be added.
"""

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final, NamedTuple, get_args

from wxauth.errors import ClientLacksScope, FieldError, InvalidClient, InvalidRequest, NameTaken, NotFound
from wxauth.server.apps.rows import stored_apps
from wxauth.server.clients import rows
from wxauth.server.clients.client import CLIENT_NAME, AddedClient, Client, IdTokenAlg, Scope
from wxauth.server.clients.uris import check_uri, origin_of
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.setting_types import AppKind
from wxauth.server.core.settings import App, Settings
from wxauth.server.core.trail import OPERATOR, SYSTEM, WECHAT, Actor, EventType, record_event

SCOPES: Final = ("openid", "profile", "phone", "email", "roles", "offline_access")
"""The scopes that a site may have, beside those of a service."""
DEFAULT_SCOPES: Final = (Scope.INTROSPECT,)
"""The scopes of a service that is added without naming any."""
DEFAULT_SITE_SCOPES: Final = ("openid", "profile")
"""The scopes of a site that names none of a site's."""
ID_TOKEN_ALGS: Final[tuple[str, ...]] = get_args(IdTokenAlg)
ID_TOKEN_ALG: Final[IdTokenAlg] = "RS256"  # noqa: S105 - an algorithm
"""The algorithm of a site that names none."""
FORMER_SECRET_KEPT: Final = timedelta(hours=24)
"""How long a renewed secret's former one still works: a sibling's replicas get the new one one by one."""

NO_SUCH_CLIENT: Final = "there is no such service client"
NAME_TAKEN: Final = "there is a service client of this name already"
HAS_NO_SECRET: Final = ("name", "is a public client's, which has no secret")

# As an actor of the audit trail, a client must not be taken for a user or for one of these.
_ACTORS: Final = (SYSTEM.name, OPERATOR.name, WECHAT.name)
NAME_RULE: Final = (
    "must be 1 to 64 of a-z, 0-9, _ and -, the first a letter or digit; "
    f"no UUID, none of {', '.join(_ACTORS)}, and no name that begins with wxauth"
)

_SECRET_BYTES: Final = 32
_SECRET_CHARACTERS: Final = 43
"""Of that many bytes in base64url."""
_NAME: Final = re.compile(CLIENT_NAME)
_USER_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NO_HASH: Final = bytes(sha256().digest_size)
_APP_ID: Final = re.compile(r"wx[0-9a-z]{16}")
_ANY_APP_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_APPS: Final[Mapping[str, tuple[AppKind, str]]] = {
    "app_id": ("mini_program", "must be the app_id of a mini-program"),
    "account_app_id": ("official_account", "must be the app_id of a service account"),
    "website_app_id": ("website", "must be the app_id of a website app"),
}
"""By field of a site, the kind of app that it names, and its rule."""
# Neither controls nor lone surrogates, nor what reorders the text around it (Unicode, UAX 9): the phone shows a title.
_TITLE: Final = (
    r"(?=.*\S)[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]{1,64}"
)
_FORMS: Final = {
    "title": (re.compile(_TITLE), "must be 1 to 64 characters, not only spaces, none of them a control"),
    **{field: (_ANY_APP_ID, rule) for field, (_, rule) in _APPS.items()},
    "email_domain": (re.compile(r"(?=.{1,200}\Z)[a-z0-9-]+(\.[a-z0-9-]+)+"), "must be a domain like example.com"),
    "id_token_alg": (re.compile("|".join(ID_TOKEN_ALGS)), f"must be one of {', '.join(ID_TOKEN_ALGS)}"),
}
_URIS: Final = ("redirect_uris", "logout_uris")
_OF_SITES: Final = tuple(Client.model_fields.keys() - {"name", "scopes", "redirect_uris", "device"})

log = get_logger()


class WrongClient(InvalidRequest):
    """A client cannot be as it is asked for: the field that is wrong, and its rule."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}", errors=[FieldError(field, text)])


class Credentials(NamedTuple):
    """What a client sends with each request (RFC 6749, section 2.3.1)."""

    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"Credentials(client_id={self.client_id!r})"


@dataclass(frozen=True, slots=True)
class ProvedClient:
    """A client that has proved who it is, and what it may do as a service."""

    name: str
    scopes: frozenset[Scope]


def check_name(name: str) -> str:
    """The name, if an administrator may give it to a client. Raises: ValueError."""
    if not is_name(name) or is_own_name(name):
        raise ValueError(NAME_RULE)
    return name


def is_name(text: str) -> bool:
    """Whether a client can have this name, be it an administrator's client or one of our own pages."""
    return _NAME.fullmatch(text) is not None and text not in _ACTORS and _USER_ID.fullmatch(text) is None


def is_own_name(text: str) -> bool:
    """Whether a client of this name is one of wxauth's own pages, which no administrator makes or changes."""
    return text.startswith("wxauth")


def asked_for(name: str, options: Mapping[str, Any]) -> Client:
    """The client that these options make.

    Args:
        name: The client's name.
        options: Some of `Client`'s fields. An absent one is as good as null, false or an empty list.

    Raises: WrongClient.
    """
    for field, (form, rule) in _FORMS.items():
        if options.get(field) is not None and not form.fullmatch(options[field]):
            raise WrongClient(field, rule)
    given = {field: value for field, value in options.items() if value}
    given |= {field: _checked_uris(field, given.get(field, ())) for field in _URIS}
    client = Client(**{"scopes": [], **given, "name": name})
    is_site = bool(client.redirect_uris) or client.device
    known = (*Scope, *SCOPES) if is_site else tuple(Scope)
    if unknown := [scope for scope in client.scopes if scope not in known]:
        is_of_sites = unknown[0] in SCOPES
        rule = f"{unknown[0]} is for a site" if is_of_sites else f"must be some of {', '.join(known)}"
        raise WrongClient("scopes", rule)
    scopes: list[str] = [*in_order(client.scopes)]
    if is_site:
        _check_site(client)
        site_scopes = [scope for scope in SCOPES if scope in client.scopes] or DEFAULT_SITE_SCOPES
        defaults = {"title": client.title or name, "id_token_alg": client.id_token_alg or ID_TOKEN_ALG}
        return client.model_copy(update={**defaults, "scopes": [*scopes, *site_scopes]})
    for field in _OF_SITES:
        if getattr(client, field):
            raise WrongClient(field, "is for a site: one with a redirect URI, or with the device grant")
    return client.model_copy(update={"scopes": scopes or list(DEFAULT_SCOPES)})


async def add_client(database: Database, client: Client, *, by: Actor = OPERATOR, now: datetime) -> Credentials | None:
    """Add a client that was asked for. Its credentials, which are not stored; None for a public one.

    Raises: NameTaken, StorageUnavailable.
    """
    secret, secret_hash = (None, None) if client.is_public else _new_secret()
    if not await rows.store_client(database, client, secret_hash=secret_hash, by=by, now=now):
        raise NameTaken(NAME_TAKEN)
    return None if secret is None else Credentials(client.name, secret)


async def change_client(
    database: Database,
    name: str,
    changes: Mapping[str, Any],
    *,
    reserved: Collection[str] = (),
    by: Actor = OPERATOR,
    now: datetime,
) -> AddedClient:
    """Change these fields of a client; the others stay. A site's sessions go on, with the scopes that are left.

    Args:
        database: Where it is stored.
        name: The client's name.
        changes: Some of `Client`'s fields. Null, false or empty removes what may be absent.
        reserved: Names that no site may have: see `names_of_others`.
        by: Who changes it.
        now: The time.

    Raises: NotFound, WrongClient, StorageUnavailable.
    """
    async with database.begin() as transaction:
        client = await rows.lock_client(transaction, name)
        if client is None:
            raise NotFound(NO_SUCH_CLIENT)
        wanted = asked_for(name, _merged(client, changes))
        refuse_reserved(wanted, reserved)
        values = wanted.model_dump()
        if fields := [field for field, value in values.items() if value != getattr(client, field)]:
            client = client.model_copy(update=values)
            await rows.store_change(transaction, wanted)
            data = {"name": name, "scopes": client.scopes, "fields": fields}
            await record_event(transaction, EventType.CLIENT_CHANGED, by=by, at=now, data=data)
    return client


async def renew_secret(
    database: Database, name: str, *, at_once: bool = False, by: Actor = OPERATOR, now: datetime
) -> tuple[Credentials, Sequence[str]]:
    """A new secret for a client, and its scopes. The former secret works for a day more, or no longer at all.

    There is one former secret at most: the one before it is refused from now on.

    Raises: NotFound; InvalidRequest, if the client is public; StorageUnavailable.
    """
    secret, secret_hash = _new_secret()
    former_until = None if at_once else now + FORMER_SECRET_KEPT
    scopes = await rows.renew_secret(database, name, secret_hash=secret_hash, former_until=former_until, by=by, now=now)
    if scopes is None:
        is_there = await rows.find_secrets(database, name) is not None
        raise InvalidRequest.of(*HAS_NO_SECRET) if is_there else NotFound(NO_SUCH_CLIENT)
    return Credentials(name, secret), scopes


async def remove_client(database: Database, name: str, *, by: Actor = OPERATOR, now: datetime) -> None:
    """Refuse this client from now on. Raises: NotFound, StorageUnavailable."""
    if not await rows.delete_client(database, name, by=by, now=now):
        raise NotFound(NO_SUCH_CLIENT)


async def ensure_own_client(
    database: Database,
    name: str,
    *,
    title: str,
    redirect_uris: Sequence[str],
    logout_uris: Sequence[str] = (),
    account_app_id: str | None = None,
    website_app_id: str | None = None,
    scopes: Sequence[str],
    now: datetime,
) -> None:
    """Store a client for a page that the service itself serves. Each start stores it as it is given here.

    It is public. Its name is one that no command can add, and its scopes may be some that no command can give.

    Raises: ValueError, for a name that is not ours; StorageUnavailable.
    """
    if not is_own_name(name):
        raise ValueError("a client of our own is named wxauth-...")
    client = Client(
        name=name,
        title=title,
        scopes=list(scopes),
        is_public=True,
        redirect_uris=list(redirect_uris),
        logout_uris=list(logout_uris),
        account_app_id=account_app_id,
        website_app_id=website_app_id,
        id_token_alg=ID_TOKEN_ALG,
    )
    await rows.ensure_public_client(database, client, now=now)


async def authenticate(
    database: Database, credentials: Credentials, needed: Scope | None = None, *, now: datetime
) -> ProvedClient:
    """The client of these credentials, if it has the needed scope. A name that no client can have costs no read.

    Raises: InvalidClient; ClientLacksScope; StorageUnavailable.
    """
    name = credentials.client_id
    found = await rows.find_secrets(database, name) if is_name(name) else None
    stored = _check_secret(credentials, found, now=now)
    if needed is not None and needed not in stored.scopes:
        raise ClientLacksScope(f"this needs the scope {needed}: wxauth clients set NAME --scope ...")
    return ProvedClient(name, frozenset(in_order(stored.scopes)))


async def authenticate_whole(database: Database, credentials: Credentials, *, now: datetime) -> Client:
    """The whole client of these credentials, by one read. Raises: InvalidClient; StorageUnavailable."""
    name = credentials.client_id
    found = await rows.find_with_secrets(database, name) if is_name(name) else None
    client, stored = found or (None, None)
    _check_secret(credentials, stored, now=now)
    assert client is not None
    return client


def in_order(scopes: Collection[str]) -> list[Scope]:
    """Each of a service's scopes among these once, in the order of `Scope`."""
    return [scope for scope in Scope if scope in scopes]


async def names_of_others(database: Database, audience: str, apps: Sequence[App] = ()) -> Sequence[str]:
    """The audience, and these and all stored apps. Tokens of a site that had such a name would be taken for theirs.

    Raises: StorageUnavailable.
    """
    return [audience, *(app.app_id for app in apps), *(app["app_id"] for app in await stored_apps(database))]


def refuse_reserved(client: Client, reserved: Collection[str]) -> None:
    """Refuse a site that has one of these names. Raises: WrongClient."""
    if client.is_site and client.name in reserved:
        raise WrongClient(
            "name", "must not be a site's: it is the audience's or an app's, and tokens would be confused"
        )


def names_apps(values: Mapping[str, Any]) -> bool:
    """Whether these fields of a site name an app."""
    return any(values.get(field) for field in _APPS)


def refuse_wrong_apps(values: Mapping[str, Any], kinds: Mapping[str, AppKind]) -> None:
    """Refuse fields of a site that name an app of another kind. Only a mini-program may be added later.

    Raises: WrongClient.
    """
    for field, (kind, rule) in _APPS.items():
        app_id = values.get(field)
        if app_id and kinds.get(app_id, "mini_program") != kind:
            raise WrongClient(field, rule)


async def clashing_clients(database: Database, settings: Settings) -> Sequence[str]:
    """The sites that are named like the audience or an app. Their tokens would be taken for others.

    Raises: StorageUnavailable.
    """
    return await rows.sites_named(database, await names_of_others(database, settings.audience, settings.apps))


def origin_shown(client: Client) -> str | None:
    """The site's origin, to show to the person who is asked; None if the site has no redirect URI."""
    return origin_of(client.redirect_uris[0]) if client.redirect_uris else None


def _checked_uris(field: str, uris: Sequence[str]) -> list[str]:
    try:
        return list(dict.fromkeys(check_uri(uri) for uri in uris))
    except ValueError as exc:
        raise WrongClient(field, str(exc)) from None


def _check_site(client: Client) -> None:
    """Refuse what no site can be. Raises: WrongClient."""
    if client.is_public and client.device:
        raise WrongClient("is_public", "excludes the device grant: anybody could show a code in its name")
    if client.is_public and (scopes := in_order(client.scopes)):
        raise WrongClient("scopes", f"{scopes[0]} is for services with a secret")
    if client.logout_uris and not client.redirect_uris:
        raise WrongClient("logout_uris", "must be empty without a redirect URI")
    if _APP_ID.fullmatch(client.name):
        raise WrongClient("name", "must not be a site's: it looks like the app_id of a mini-program")


def _merged(client: Client, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    after: dict[str, Any] = {**client.model_dump(), **changes}
    # A public client has no secret that it could go on with; a confidential one would leave sessions that it proved by
    # its secret to anybody who knows its name.
    if bool(after["is_public"]) != client.is_public:
        raise WrongClient("is_public", "cannot be changed: remove the client, and add it anew")
    if client.is_site and not (after["redirect_uris"] or after["device"]):
        raise WrongClient("redirect_uris", "must not be empty without the device grant: a site remains a site")
    return after


def _new_secret() -> tuple[str, bytes]:
    """A secret, and the hash that is stored."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    return secret, _hash(secret)


def _check_secret(credentials: Credentials, stored: rows.Secrets | None, *, now: datetime) -> rows.Secrets:
    """What is stored, if this is the present secret or the former one while it works. Raises: InvalidClient."""
    # An unknown name, or one of a client without a secret, takes the same steps as a wrong secret.
    given = _hash(credentials.client_secret)
    is_right = compare_digest(given, (stored and stored.secret_hash) or _NO_HASH)
    is_former = compare_digest(given, (stored and stored.former_secret_hash) or _NO_HASH)
    if stored is None or not (is_right or (is_former and stored.is_former_good(now))):
        log.warning(
            "client_refused",
            client_id=credentials.client_id if is_name(credentials.client_id) else None,
            received=f"a secret of {len(credentials.client_secret)} characters",
            registered=_registered(stored, is_former=is_former),
            what_to_change="the client's own setting; 'wxauth clients secret NAME' prints a new secret",
        )
        raise InvalidClient("there is no service client with this name and secret")
    return stored


def _registered(stored: rows.Secrets | None, *, is_former: bool) -> str:
    """What there is in place of what was received, for the log."""
    if stored is None:
        return "no client of this name"
    if stored.secret_hash is None:
        return "a public client, which has no secret"
    if is_former:
        return "a newer secret; this one has ended"
    return f"another secret, of {_SECRET_CHARACTERS} characters"


def _hash(secret: str) -> bytes:
    # Slow hashes protect passwords that people choose. These are 32 random bytes, which no speed of guessing finds,
    # and a slow hash would cost its time with every request.
    return sha256(secret.encode()).digest()
