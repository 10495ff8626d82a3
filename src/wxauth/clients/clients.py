"""Clients, the services that query wxauth, and the sites that log users in. All have a name, most have a secret.

Sites must be the operator's own. All of them share one audience, so every service behind a guard accepts the tokens of
every site. Never add a site of a third party.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, get_args
from urllib.parse import urlencode, urlsplit

from wxauth.apps.queries import STORED_APPS
from wxauth.clients import queries
from wxauth.clients.models import (
    CLIENT_NAME,
    DEFAULT_SITE_SCOPES,
    OPENID_SCOPE,
    SITE_SCOPE_NAMES,
    AddedClient,
    Client,
    IdTokenAlg,
    Scope,
)
from wxauth.core.database import Database, Transaction
from wxauth.core.trail import OPERATOR, SYSTEM, WECHAT, Actor, EventType, record_event
from wxauth.errors import NameTaken, NotFound, StorageUnavailable
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.outbound.urls import NameResolver, check_url
from wxauth.settings.apps import APP_ID, AppKind
from wxauth.settings.claims import check_claims
from wxauth.settings.logos import check_logo
from wxauth.settings.resources import Resource, as_compared, find_resource
from wxauth.settings.settings import ClientCommandSettings, Settings
from wxauth.terminal import WrongValue
from wxauth.texts import hash_of, new_secret
from wxauth.users.schemas import TITLE
from wxauth_guard.errors import FieldError, InvalidRequest
from wxauth_guard.texts import is_http_url, is_loopback, is_secure

DEFAULT_SCOPES: Final = (Scope.INTROSPECT,)
"""The scopes of a service, by default."""
ID_TOKEN_ALGS: Final[tuple[str, ...]] = get_args(IdTokenAlg)
ID_TOKEN_ALG: Final[IdTokenAlg] = "RS256"  # noqa: S105 - an algorithm
"""The algorithm of a site, by default."""
FORMER_SECRET_KEPT: Final = timedelta(hours=24)
"""The time for which the previous secret still works after a rotation, because a client's replicas change one by one.
"""
ENDED_AT_ONCE: Final = 1000
"""The number of sessions of a removed site that one transaction ends.

Logins of their users wait for this transaction.
"""
_WAIT_FOR_OTHERS_SECONDS: Final = 0.1

NO_SUCH_CLIENT: Final = "there is no such service client"
NAME_TAKEN: Final = "there is a service client of this name already"
NAME_REMOVED: Final = "the sessions of the removed client of this name are being ended, for some seconds or minutes"
HAS_NO_SECRET: Final = ("name", "is a public client's, which has no secret")

# A client is an actor in the audit log, so its name must not look like a user's id or one of these actors.
_ACTORS: Final = (SYSTEM.name, OPERATOR.name, WECHAT.name)
NAME_RULE: Final = _(
    "must be 1 to 64 characters of a-z, 0-9, _ and -, beginning with a letter or digit. It must not be a UUID or "
    "one of {names}, or begin with wxauth",
    names=", ".join(_ACTORS),
)

_NAME: Final = re.compile(CLIENT_NAME)
_USER_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_APP_ID: Final = re.compile(r"wx[0-9a-z]{16}")
_APPS: Final[Mapping[str, tuple[AppKind, Text]]] = {
    "app_id": ("mini_program", _("must be the app_id of a mini-program")),
    "account_app_id": ("official_account", _("must be the app_id of a service account")),
    "website_app_id": ("website", _("must be the app_id of a website app")),
}
"""The fields of a site that name an app, with the kind of that app and the text of the rule."""
_FORMS: Final = {
    "title": (TITLE, _("must be 1 to 64 characters, not all spaces, without control characters")),
    **{field: (APP_ID, rule) for field, (_, rule) in _APPS.items()},
    "email_domain": (re.compile(r"(?=.{1,200}\Z)[a-z0-9-]+(\.[a-z0-9-]+)+"), _("must be a domain such as example.com")),
    "id_token_alg": (
        re.compile("|".join(ID_TOKEN_ALGS)),
        _("must be one of {choices}", choices=", ".join(ID_TOKEN_ALGS)),
    ),
}
MAX_URI_LENGTH: Final = 2048
MAX_URIS: Final = 100
"""The maximum number of URIs of each kind, because each login and each CORS request compares them."""
_LONGEST_SHOWN: Final = 200
_TAIL: Final = r"[A-Za-z0-9._~:/?\[\]!$&'()+,;=%@-]*"
_OF_APP: Final = r"(?P<scheme>[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)+):/"
_PRIVATE_USE: Final = re.compile(rf"{_OF_APP}{_TAIL}", re.ASCII)
"""The form of a URI of a program on a device, whose scheme is a domain in reverse order (RFC 8252, section 7.1)."""
HOST_RULE: Final = _("must have a host of letters, digits, - and . (xn--… for other characters), and no user")
_URI_RULES: Final = (
    (
        re.compile(rf"(?:https?://|{_OF_APP}).*", re.ASCII | re.DOTALL),
        _("must use https, http for a loopback address, or an app's own scheme such as com.example.app"),
    ),
    (re.compile(r"[^#]*"), _("must not contain a fragment (#)")),
    (re.compile(r"(?!https?:).*|https?://[A-Za-z0-9.:\[\]-]+(?![^/?]).*", re.ASCII | re.DOTALL), HOST_RULE),
    (
        re.compile(rf"[a-z0-9+.-]+:/{_TAIL}", re.ASCII),
        _("must contain only characters allowed in a URI: percent-encode others; * is not a wildcard"),
    ),
)
"""The rules for the form of a URI (RFC 3986)."""
# A program on the user's own machine may use a different port each time (RFC 8252, section 7.3).
_ON_LOOPBACK: Final = re.compile(
    r"(https?://(?:127(?:\.[0-9]{1,3}){3}|\[::1\]|(?P<name>localhost)))(?::[0-9]{1,5})?((?:[/?].*)?)"
)
_URIS: Final = ("redirect_uris", "logout_uris")
_OF_SITES: Final = tuple(Client.model_fields.keys() - {"name", "scopes", "redirect_uris", "device", "resources"})


AnyClientSettings = Settings | ClientCommandSettings


class WrongClient(InvalidRequest):
    """The client cannot have these options. The error names the wrong field and its rule."""

    def __init__(self, field: str, rule: Text) -> None:
        super().__init__(_("{name}: {rule}", name=field, rule=rule), errors=[FieldError(field, rule)])


class Credentials(NamedTuple):
    """The credentials that a client sends with each request (RFC 6749, section 2.3.1)."""

    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"Credentials(client_id={self.client_id!r})"


def check_name(name: str) -> str:
    """Check a name that an administrator gives to a client. Raises: ValueError."""
    if not is_client_name(name) or is_own_name(name):
        raise WrongValue(NAME_RULE)
    return name


def is_client_name(text: str) -> bool:
    """Return whether a client can have this name, including the names of wxauth's own pages."""
    return _NAME.fullmatch(text) is not None and text not in _ACTORS and _USER_ID.fullmatch(text) is None


async def find_site(asked: Database | Transaction, name: str) -> Client | None:
    """Return the site with this name, without its logo, or None. A name that no client can have costs no query."""
    return await asked.row(queries.FIND_SITE, name=name) if is_client_name(name) else None


def is_own_name(text: str) -> bool:
    """Return whether this name is reserved for wxauth's own pages, which administrators cannot add or change."""
    return text.startswith("wxauth")


def build_client(name: str, options: Mapping[str, Any], *, stored: Client | None = None) -> Client:
    """Build a client from its options, which are some of `Client`'s fields.

    An absent field means the same as null, false or an empty list. Stored options may break a rule that was added
    later.

    Raises: WrongClient.
    """
    for field, (form, rule) in _FORMS.items():
        if options.get(field) is not None and not form.fullmatch(options[field]):
            raise WrongClient(field, rule)
    given = {field: value for field, value in options.items() if value}
    checks: dict[str, Callable[[Any], object]] = {"claims": check_claims, "logo": check_logo}
    for field, check in (checks | dict.fromkeys(_URIS, _check_uris)).items():
        if field in given and given[field] != getattr(stored, field, None):
            try:
                check(given[field])
            except WrongValue as exc:
                raise WrongClient(field, exc.text) from None
    given |= {field: list(dict.fromkeys(given[field])) for field in _URIS if field in given}
    client = Client(**{"scopes": [], **given, "name": name})
    is_site = bool(client.redirect_uris) or client.device or client.phone_id_token
    known = (*Scope, *SITE_SCOPE_NAMES) if is_site else tuple(Scope)
    if unknown := [scope for scope in client.scopes if scope not in known]:
        rule = _("{scope} is only for a site") if unknown[0] in SITE_SCOPE_NAMES else _("must be chosen from {scopes}")
        raise WrongClient("scopes", Text(rule, scope=unknown[0], scopes=", ".join(known)))
    scopes: list[str] = [*scopes_in_order(client.scopes)]
    if is_site:
        site_scopes = [scope for scope in SITE_SCOPE_NAMES if scope in client.scopes] or DEFAULT_SITE_SCOPES
        _check_site(client, site_scopes)
        defaults = {"title": client.title or name, "id_token_alg": client.id_token_alg or ID_TOKEN_ALG}
        return client.model_copy(update={**defaults, "scopes": [*scopes, *site_scopes]})
    for field in _OF_SITES:
        if getattr(client, field) != Client.model_fields[field].default:
            raise WrongClient(
                field, _("is only for a site, which has a redirect URI, the device grant, or phones' id_tokens")
            )
    return client.model_copy(update={"scopes": scopes or list(DEFAULT_SCOPES)})


@dataclass(frozen=True, slots=True)
class ClientChanges:
    """Adds and changes clients, and checks what their fields refer to."""

    database: Database
    resolver: NameResolver
    settings: AnyClientSettings

    async def add(
        self, name: str, options: Mapping[str, Any], *, by: Actor = OPERATOR, now: datetime
    ) -> tuple[Client, Credentials | None]:
        """Build a client and add it. Return its credentials, too; None for a public client.

        Raises: WrongClient, NameTaken.
        """
        options = _with_known_resources(options, self.settings.resources)
        client = build_client(name, options)
        _refuse_reserved(client, await self._check(options))
        return client, await add_client(self.database, client, by=by, now=now)

    async def change(
        self, name: str, changes: Mapping[str, Any], *, by: Actor = OPERATOR, now: datetime
    ) -> AddedClient:
        """Change these fields of a client. A site's sessions continue, with the scopes that the site still has.

        Null, false or empty clears an optional field.

        Raises: NotFound, WrongClient.
        """
        changes = _with_known_resources(changes, self.settings.resources)
        reserved = await self._check(changes)
        async with self.database.begin() as transaction:
            client = await transaction.row(queries.LOCK, name=name)
            if client is None:
                raise NotFound(NO_SUCH_CLIENT)
            new = build_client(name, _merged(client, changes), stored=client)
            _refuse_reserved(new, reserved)
            values = new.model_dump()
            if fields := [field for field, value in values.items() if value != getattr(client, field)]:
                client = client.model_copy(update=values)
                await transaction.run(queries.CHANGE, client=new)
                data = {"name": name, "scopes": client.scopes, "fields": fields}
                await record_event(transaction, EventType.CLIENT_CHANGED, by=by, at=now, data=data)
        return client

    async def _check(self, values: Mapping[str, Any]) -> Collection[str]:
        """Check the apps that these fields name, and the URLs to which logout tokens may be sent.

        An unknown mini-program is accepted, because it might be added later, but other unknown apps are refused. Return
        the names that no site may have, because its tokens could be mistaken for others. These are the audience and the
        ids of all apps.

        Raises: WrongClient.
        """
        kinds = await _kinds_of_apps(self.database, self.settings)
        for field, (kind, rule) in _APPS.items():
            if values.get(field) and kinds.get(values[field], "mini_program") != kind:
                raise WrongClient(field, rule)
        if uri := values.get("backchannel_logout_uri"):
            if "#" in uri:
                raise WrongClient("backchannel_logout_uri", _("must not contain a fragment"))
            try:
                await check_url(uri, resolver=self.resolver)
            except WrongValue as exc:
                raise WrongClient("backchannel_logout_uri", exc.text) from None
        return {self.settings.audience, *kinds}


async def add_client(database: Database, client: Client, *, by: Actor = OPERATOR, now: datetime) -> Credentials | None:
    """Add a client. Return its credentials, which are not stored; None for a public client.

    Raises: NameTaken.
    """
    secret = None if client.is_public else new_secret()
    async with database.begin() as transaction:
        added = await transaction.value(queries.ADD, client=client, secret_hash=secret and hash_of(secret), now=now)
        if added is not None:
            data = {"name": client.name, "scopes": client.scopes}
            await record_event(transaction, EventType.CLIENT_ADDED, by=by, at=now, data=data)
    if added is None:
        left = await database.value(queries.SESSIONS_LEFT, name=client.name)
        raise NameTaken(NAME_TAKEN if left is None else f"{NAME_REMOVED}: {left} are left")
    return None if secret is None else Credentials(client.name, secret)


async def renew_secret(
    database: Database, name: str, *, at_once: bool = False, by: Actor = OPERATOR, now: datetime
) -> tuple[Credentials, Sequence[str]]:
    """Give a client a new secret. Return its credentials and scopes.

    The previous secret still works for a day, unless `at_once`. Older secrets no longer work.

    Raises: NotFound; InvalidRequest, if the client is public.
    """
    secret = new_secret()
    values = {"secret_hash": hash_of(secret), "former_until": None if at_once else now + FORMER_SECRET_KEPT}
    async with database.begin() as transaction:
        scopes = await transaction.value(queries.RENEW, name=name, **values)
        if scopes is not None:
            await record_event(transaction, EventType.CLIENT_SECRET_RENEWED, by=by, at=now, data={"name": name})
    if scopes is None:
        is_there = await database.row(queries.FIND_SERVICE, name=name) is not None
        raise InvalidRequest.of(*HAS_NO_SECRET) if is_there else NotFound(NO_SUCH_CLIENT)
    return Credentials(name, secret), scopes


async def remove_client(database: Database, name: str, *, by: Actor = OPERATOR, now: datetime) -> None:
    """Remove a client, whose requests then fail, and end a page of its sessions. Housekeeping ends the others.

    Raises: NotFound.
    """
    async with database.begin() as transaction:
        removed = await transaction.value(queries.REMOVE, name=name, by=by.name)
        if removed is not None:
            await record_event(transaction, EventType.CLIENT_REMOVED, by=by, at=now, data={"name": name})
    if removed is None and await database.value(queries.SESSIONS_LEFT, name=name) is None:
        raise NotFound(NO_SUCH_CLIENT)
    with suppress(StorageUnavailable):  # the client is removed even if ending the sessions fails
        await queries.end_removed_page(database, size=ENDED_AT_ONCE, name=name, now=now)


async def end_sessions_left(database: Database, name: str) -> AsyncIterator[int]:
    """End the sessions that a removed client still has. Yield their number before every ten pages."""
    while (left := await database.value(queries.SESSIONS_LEFT, name=name)) is not None:
        yield left
        for _page in range(10):
            page = await queries.end_removed_page(database, size=ENDED_AT_ONCE, name=name, now=await database.time())
            if page is None or not page.rows:  # removed, deleted by another worker, or its users are locked
                await asyncio.sleep(_WAIT_FOR_OTHERS_SECONDS)
            elif page.is_last:
                break


async def ensure_own_client(database: Database, name: str, *, now: datetime, **fields: Any) -> None:
    """Add or replace the public client of a page that the service itself serves. The service does this at each start.

    Its name is reserved, and its scopes may include some that no command can give. `fields` are some of `Client`'s.

    Raises: ValueError, for a name that is not reserved.
    """
    if not is_own_name(name):
        raise ValueError("a client of our own is named wxauth-...")
    client = Client(name=name, is_public=True, id_token_alg=ID_TOKEN_ALG, **fields)
    await database.run(queries.ADD_OR_REPLACE, client=client, secret_hash=None, now=now)


def scopes_in_order(scopes: Collection[str]) -> list[Scope]:
    """Return those of these scopes that a service can have, each once, in the order of `Scope`."""
    return [scope for scope in Scope if scope in scopes]


def _refuse_reserved(client: Client, reserved: Collection[str]) -> None:
    """Refuse a site with one of these names. Raises: WrongClient."""
    if client.is_site and client.name in reserved:
        raise WrongClient(
            "name", _("must not be the name of a site: it is the audience or an app, and tokens would be confused")
        )


def _with_known_resources(values: Mapping[str, Any], known: Iterable[Resource]) -> Mapping[str, Any]:
    """Return these fields of a client, with each resource spelled as in the settings.

    Raises: WrongClient, for an unknown resource.
    """
    if not values.get("resources"):
        return values
    found = [find_resource(known, url) for url in values["resources"]]
    if None in found:
        raise WrongClient(
            "resources", _("must be resources of WXAUTH_RESOURCES, spelled exactly as there: a slash at the end counts")
        )
    return {**values, "resources": list(dict.fromkeys(each.resource for each in found if each is not None))}


async def _kinds_of_apps(database: Database, settings: AnyClientSettings) -> Mapping[str, AppKind]:
    """Return the kinds of all apps by id, both of the apps in the settings and of the stored ones."""
    stored = {row.app_id: row.fields.get("kind", "mini_program") for row in await database.rows(STORED_APPS)}
    return stored | {app.app_id: app.kind for app in settings.apps}


async def clashing_clients(database: Database, settings: Settings) -> Sequence[str]:
    """Return the sites whose name is the audience or the id of an app. Their tokens could be mistaken for others."""
    names = [settings.audience, *await _kinds_of_apps(database, settings)]
    return await database.values(queries.SITES_NAMED, names=names)


def origin_shown(redirect_uris: Sequence[str], asked: str = "") -> str | None:
    """Return the origin of a site with these URIs, as the user who logs in sees it; None if it has none.

    For an app, it is the scheme of the requested URI (`asked`). On a loopback address, it has the requested port.
    """
    if is_local(asked):
        return origin_of(asked)
    return scheme_of_app(asked) or (origin_of(redirect_uris[0]) if redirect_uris else None)


def _check_uris(uris: Sequence[str]) -> None:
    if len(uris) > MAX_URIS:
        raise WrongValue(_("must be up to {n} URIs", n=MAX_URIS))
    for uri in uris:
        check_uri(uri)


def _check_site(client: Client, site_scopes: Collection[str]) -> None:
    """Refuse options that a site cannot have. Raises: WrongClient."""
    if client.is_public and client.device:
        raise WrongClient(
            "is_public",
            _("cannot be used together with the device grant: anyone could show a QR code in the client's name"),
        )
    if client.is_public and (scopes := scopes_in_order(client.scopes)):
        raise WrongClient("scopes", _("{scope} is only for services with a secret", scope=scopes[0]))
    if client.is_public and client.pkce == "optional":
        raise WrongClient("pkce", _("must stay required: a public client has no secret"))
    if client.logout_uris and not client.redirect_uris:
        raise WrongClient("logout_uris", _("must be empty without a redirect URI"))
    if client.sso and not client.redirect_uris:
        raise WrongClient("sso", _("needs a redirect URI: a device has no browser whose login it could share"))
    if client.sso and client.near:
        raise WrongClient(
            "sso", _("cannot be used together with near, which asks for a phone at each login: choose one of the two")
        )
    if client.link and not client.redirect_uris:
        raise WrongClient("link", _("needs a redirect URI: a device has no phone's browser"))
    if client.link and client.near:
        raise WrongClient(
            "link", _("cannot be used together with near: a browser and WeChat on one phone may use different networks")
        )
    if client.phone_id_token and OPENID_SCOPE not in site_scopes:
        raise WrongClient("phone_id_token", _("needs the scope openid, because an id_token requires it"))
    if client.phone_id_token and client.near:
        raise WrongClient(
            "phone_id_token",
            _("cannot be used together with near: there is no browser whose network could be compared"),
        )
    if _APP_ID.fullmatch(client.name):
        raise WrongClient("name", _("must not be the name of a site: it looks like the app_id of a mini-program"))


def _merged(client: Client, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    after: dict[str, Any] = {**client.model_dump(), **changes}
    # A public client has no secret for its next requests. If a confidential client became public, an attacker who knows
    # its name could use the sessions that were opened with its secret.
    if bool(after["is_public"]) != client.is_public:
        raise WrongClient("is_public", _("cannot be changed: remove the client and add it again"))
    if client.is_site and not (after["redirect_uris"] or after["device"] or after["phone_id_token"]):
        raise WrongClient("redirect_uris", _("must not be empty without the device grant: a site must remain a site"))
    return after


def check_uri(uri: str) -> str:
    """Check a URI that is to be registered. Raises: ValueError."""
    if len(uri) > MAX_URI_LENGTH:
        raise WrongValue(_("must be up to {n} characters", n=MAX_URI_LENGTH))
    for form, rule in _URI_RULES:
        if not form.fullmatch(uri):
            raise WrongValue(rule)
    if scheme_of_app(uri) is None:
        if not is_http_url(uri):
            raise WrongValue(HOST_RULE)
        if not is_secure(uri):
            raise WrongValue(_("must use https: http is only for a loopback address"))
    return uri


def scheme_of_app(uri: str) -> str | None:
    """Return the private-use scheme of a URI that opens a program on a device; None for any other URI."""
    found = _PRIVATE_USE.fullmatch(uri)
    return found and found["scheme"]


def is_local(uri: str) -> bool:
    """Return whether a redirect URI leads to this machine."""
    return scheme_of_app(uri) is None and is_loopback(urlsplit(uri).hostname)


def is_registered(uri: str, registered: Iterable[str], *, allows_localhost: bool = False) -> bool:
    """Return whether this URI is registered. It must be identical, except for the port of a loopback address.

    With `allows_localhost`, the name `localhost` counts as a loopback address.
    """
    without_port = _without_port(uri, allows_localhost=allows_localhost)
    return any(
        uri == other
        or (without_port is not None and without_port == _without_port(other, allows_localhost=allows_localhost))
        for other in registered
    )


def loggable_uri(uri: str) -> str:
    """Return a URI for the log, without user, query and fragment, because these parts might contain secrets."""
    head = re.split(r"[?#]", uri, maxsplit=1)[0]
    cut = re.sub(r"//[^/]*@", "//…@", head)[:_LONGEST_SHOWN]
    return cut if head == uri else f"{cut}?…"


def with_query(uri: str, parameters: Mapping[str, str]) -> str:
    """Return a URI with these parameters added to its query."""
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(parameters)}"


def origin_of(uri: str) -> str:
    """Return scheme, host and port as browsers send them, in lower case and without the default port (RFC 6454).

    For an app's own URI, return its scheme.
    """
    return scheme_of_app(uri) or "/".join(as_compared(uri).split("/")[:3])


def _without_port(uri: str, *, allows_localhost: bool) -> tuple[str, str] | None:
    """Return the parts before and after the port; None if the host is not a loopback address."""
    found = _ON_LOOPBACK.fullmatch(uri)
    if found is None or (found["name"] and not allows_localhost):
        return None
    try:
        if urlsplit(uri).port == 0:
            return None
    except ValueError:  # the port is above 65535
        return None
    return found[1], found[3]
