"""Registered clients: the services that query wxauth, and the sites that log users in.

Apart from tokens for a resource, the access tokens of all sites have the same audience, so every service behind a
guard accepts them. Therefore, never add a site of a third party.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from wxauth.apps.queries import STORED_APPS
from wxauth.clients import queries
from wxauth.clients.models import DEFAULT_ID_TOKEN_ALG, AddedClient, Client
from wxauth.clients.rules import APP_FIELDS, WrongClient, build_client, change_client, is_client_name, is_own_name
from wxauth.core.database import Database, Transaction
from wxauth.core.trail import OPERATOR, Actor, EventType, record_event
from wxauth.errors import NameTaken, NotFound, StorageUnavailable, no_such
from wxauth.i18n import WrongValue, lazy_gettext as _
from wxauth.keys.queries import keep_for_id_tokens
from wxauth.outbound.urls import NameResolver, check_url
from wxauth.random_secrets import hash_of, new_secret
from wxauth.settings.apps import AppKind
from wxauth.settings.resources import Resource, find_resource
from wxauth.settings.settings import ClientCommandSettings, Settings
from wxauth_guard.errors import InvalidRequest

FORMER_SECRET_KEPT: Final = timedelta(hours=24)  # A client's replicas need this time to get the new secret.
_REMOVED_PAGE_SIZE: Final = 1000  # in each table, because logins of these sessions' users wait for the transaction
_PAGES_PER_REPORT: Final = 10
_WAIT_FOR_OTHERS_SECONDS: Final = 0.1

UNKNOWN_CLIENT: Final = no_such("service client")
_NAME_TAKEN: Final = "a service client with this name already exists"
_NAME_REMOVED: Final = "the sessions of the removed client with this name are still being ended, which can take minutes"
CLIENT_IS_PUBLIC: Final = "belongs to a public client, which has no secret"

AnyClientSettings = Settings | ClientCommandSettings


class Credentials(NamedTuple):
    """The credentials that a client sends with each request (RFC 6749, section 2.3.1)."""

    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"Credentials(client_id={self.client_id!r})"


async def find_site(database: Database | Transaction, name: str) -> Client | None:
    """Return the site with this name, without its logo; None if there is no such site."""
    return await database.row(queries.FIND_SITE, name=name) if is_client_name(name) else None


@dataclass(frozen=True, slots=True)
class ClientChanges:
    """The operations that add and change clients.

    In addition to the rules of `build_client`, they check the apps, resources and URLs that a client refers to.
    """

    database: Database
    resolver: NameResolver
    settings: AnyClientSettings

    async def add(
        self, name: str, options: Mapping[str, Any], *, by: Actor = OPERATOR, now: datetime
    ) -> tuple[Client, Credentials | None]:
        """Add a client with these fields of `Client`. Return the client and its credentials; None for a public client.

        Raises: WrongClient, if the name or an option is invalid; NameTaken.
        """
        options = _with_known_resources(options, self.settings.resources)
        client = build_client(name, options)
        kinds = await _kinds_of_apps(self.database, self.settings)
        await self._check_references(options, kinds)
        self._check_name_of_site(client, kinds)
        return client, await add_client(self.database, client, by=by, now=now)

    async def change(
        self, name: str, changes: Mapping[str, Any], *, by: Actor = OPERATOR, now: datetime
    ) -> AddedClient:
        """Change these fields of a client, and return the client. Its sessions keep the scopes that it still has.

        Raises: NotFound, if there is no such client; WrongClient, if a value is invalid, or the change not allowed.
        """
        changes = _with_known_resources(changes, self.settings.resources)
        kinds = await _kinds_of_apps(self.database, self.settings)
        await self._check_references(changes, kinds)
        async with self.database.begin() as transaction:
            before = await transaction.row(queries.LOCK, name=name)
            if before is None:
                raise NotFound(UNKNOWN_CLIENT)
            after = change_client(before, changes)
            self._check_name_of_site(after, kinds)
            values = after.model_dump()
            changed_fields = [field for field, value in values.items() if value != getattr(before, field)]
            if changed_fields:
                await transaction.run(queries.CHANGE, client=after)
                await _keep_keys(transaction, after, now=now)
                data = {"name": name, "scopes": after.scopes, "fields": changed_fields}
                await record_event(transaction, EventType.CLIENT_CHANGED, by=by, at=now, data=data)
        return before.model_copy(update=values)

    async def _check_references(self, values: Mapping[str, Any], kinds: Mapping[str, AppKind]) -> None:
        longest_session = self.settings.web_session_max_age
        if (values.get("id_token_ttl") or 0) > longest_session:
            text = _("must be at most WXAUTH_WEB_SESSION_MAX_AGE, which is {n} seconds", n=longest_session)
            raise WrongClient("id_token_ttl", text)
        for field, (kind, rule) in APP_FIELDS.items():
            app_id = values.get(field)
            # An unknown app counts as a mini-program, which might be added later.
            if app_id and kinds.get(app_id, "mini_program") != kind:
                raise WrongClient(field, rule)
        uri = values.get("backchannel_logout_uri")
        if uri:
            if "#" in uri:
                raise WrongClient("backchannel_logout_uri", _("must not contain a fragment"))
            try:
                await check_url(uri, resolver=self.resolver, is_proxied=self.settings.receivers_proxy is not None)
            except WrongValue as exc:
                raise WrongClient("backchannel_logout_uri", exc.text) from None

    def _check_name_of_site(self, client: Client, app_ids: Collection[str]) -> None:
        if client.is_site and (client.name == self.settings.audience or client.name in app_ids):
            raise WrongClient(
                "name",
                _(
                    "must not be the name of a site, because the audience or an app already has this name. Services "
                    "couldn't distinguish the tokens"
                ),
            )


async def add_client(database: Database, client: Client, *, by: Actor = OPERATOR, now: datetime) -> Credentials | None:
    """Add a client, and return its credentials; None for a public client. Raises: NameTaken."""
    secret = None if client.is_public else new_secret()
    secret_hash = None if secret is None else hash_of(secret)
    async with database.begin() as transaction:
        is_added = await transaction.value(queries.ADD, client=client, secret_hash=secret_hash, now=now) is not None
        if is_added:
            await _keep_keys(transaction, client, now=now)
            data = {"name": client.name, "scopes": client.scopes}
            await record_event(transaction, EventType.CLIENT_ADDED, by=by, at=now, data=data)
    if not is_added:
        sessions_left = await database.value(queries.SESSIONS_LEFT, name=client.name)
        raise NameTaken(_NAME_TAKEN if sessions_left is None else f"{_NAME_REMOVED}: {sessions_left} are left")
    return None if secret is None else Credentials(client.name, secret)


async def _keep_keys(transaction: Transaction, client: Client, *, now: datetime) -> None:
    if client.id_token_alg is not None and client.id_token_ttl is not None:
        await keep_for_id_tokens(transaction, alg=client.id_token_alg, ttl=client.id_token_ttl, now=now)


async def renew_secret(
    database: Database, name: str, *, at_once: bool = False, by: Actor = OPERATOR, now: datetime
) -> tuple[Credentials, Sequence[str]]:
    """Give a client a new secret. Return its new credentials and its scopes.

    The previous secret works for `FORMER_SECRET_KEPT`, unless `at_once`. Older secrets no longer work.

    Raises: NotFound, if there is no such client; InvalidRequest, if the client is public.
    """
    secret = new_secret()
    values = {"secret_hash": hash_of(secret), "former_until": None if at_once else now + FORMER_SECRET_KEPT}
    async with database.begin() as transaction:
        scopes = await transaction.value(queries.RENEW, name=name, **values)
        if scopes is not None:
            await record_event(transaction, EventType.CLIENT_SECRET_RENEWED, by=by, at=now, data={"name": name})
    if scopes is None:
        # The statement has found no client with a secret: either the client is public, or there is no such client.
        # `FIND_SERVICE` finds every client, including public ones.
        if await database.row(queries.FIND_SERVICE, name=name) is not None:
            raise InvalidRequest.of("name", CLIENT_IS_PUBLIC)
        raise NotFound(UNKNOWN_CLIENT)
    return Credentials(name, secret), scopes


async def remove_client(database: Database, name: str, *, by: Actor = OPERATOR, now: datetime) -> None:
    """Remove a client, so that its requests fail. End a page of its sessions. Housekeeping ends the remaining sessions.

    Raises: NotFound, if there is no such client, and no removed client with this name is left.
    """
    async with database.begin() as transaction:
        is_removed = await transaction.value(queries.REMOVE, name=name, by=by.name) is not None
        if is_removed:
            await record_event(transaction, EventType.CLIENT_REMOVED, by=by, at=now, data={"name": name})
    if not is_removed and await database.value(queries.SESSIONS_LEFT, name=name) is None:
        raise NotFound(UNKNOWN_CLIENT)
    with suppress(StorageUnavailable):  # the client stays removed even if ending the sessions fails
        await queries.end_removed_page(database, size=_REMOVED_PAGE_SIZE, name=name, now=now)


async def end_sessions_left(database: Database, name: str) -> AsyncIterator[int]:
    """End the remaining sessions of a removed client, and yield their number at the start and after some pages.

    Commands call this function, so that operators do not need to wait for housekeeping.
    """
    while (sessions_left := await database.value(queries.SESSIONS_LEFT, name=name)) is not None:
        yield sessions_left
        for _attempt in range(_PAGES_PER_REPORT):
            now = await database.time()
            page = await queries.end_removed_page(database, size=_REMOVED_PAGE_SIZE, name=name, now=now)
            if page is not None and page.is_last:
                break
            if page is None or not page.rows:  # another worker is ending the sessions, or their users are locked
                await asyncio.sleep(_WAIT_FOR_OTHERS_SECONDS)


async def ensure_own_client(database: Database, name: str, *, now: datetime, **fields: Any) -> None:
    """Add or replace a public client that belongs to wxauth, such as the console. Its name must be reserved.

    Its scopes can include scopes that no command can give.
    """
    if not is_own_name(name):
        raise ValueError("the name of wxauth's own client begins with wxauth")
    client = Client(name=name, is_public=True, id_token_alg=DEFAULT_ID_TOKEN_ALG, **fields)
    await database.run(queries.ADD_OR_REPLACE, client=client, secret_hash=None, now=now)


def _with_known_resources(values: Mapping[str, Any], known: Iterable[Resource]) -> Mapping[str, Any]:
    """Return these fields of a client, with each resource spelled as in the settings."""
    if not values.get("resources"):
        return values
    urls: list[str] = []
    for url in values["resources"]:
        resource = find_resource(known, url)
        if resource is None:
            raise WrongClient(
                "resources",
                _("must be resources from WXAUTH_RESOURCES, with or without a slash at the end as in that setting"),
            )
        urls.append(resource.resource)
    return {**values, "resources": list(dict.fromkeys(urls))}


async def _kinds_of_apps(database: Database, settings: AnyClientSettings) -> Mapping[str, AppKind]:
    stored = {row.app_id: row.fields.get("kind", "mini_program") for row in await database.rows(STORED_APPS)}
    return stored | {app.app_id: app.kind for app in settings.apps}


async def clashing_clients(database: Database, settings: Settings) -> Sequence[str]:
    """Return the sites whose name is also the audience or the id of an app, so that tokens could be mistaken."""
    names = [settings.audience, *await _kinds_of_apps(database, settings)]
    return await database.values(queries.SITES_NAMED, names=names)
