"""Registered clients: the services that query wxauth, and the sites that log users in.

All clients have a name, and most have a secret. Apart from tokens for a resource, the access tokens of all sites have
the same audience, so every service behind a guard accepts them. Therefore, all sites must belong to the operator. Never
add a site of a third party.
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
from wxauth.errors import NameTaken, NotFound, StorageUnavailable
from wxauth.i18n import lazy_gettext as _
from wxauth.outbound.urls import NameResolver, check_url
from wxauth.random_secrets import hash_of, new_secret
from wxauth.settings.apps import AppKind
from wxauth.settings.resources import Resource, find_resource
from wxauth.settings.settings import ClientCommandSettings, Settings
from wxauth.terminal import WrongValue
from wxauth_guard.errors import InvalidRequest

FORMER_SECRET_KEPT: Final = timedelta(hours=24)
"""The time for which the previous secret still works. A client's replicas need this time to get the new secret."""
REMOVED_PAGE_SIZE: Final = 1000
"""The maximum number of sessions of a removed site that one transaction ends.

It is also the maximum number of rows that the transaction deletes from each of the other tables. The numbers are
limited because logins of these sessions' users wait for the transaction.
"""
_PAGES_PER_REPORT: Final = 10
"""The largest number of pages that `end_sessions_left` processes before it reports the number of remaining sessions."""
_WAIT_FOR_OTHERS_SECONDS: Final = 0.1
"""The pause, in seconds, before another attempt if another worker is ending the sessions, or their users are locked."""

NO_SUCH_CLIENT: Final = "this service client doesn't exist"
NAME_TAKEN: Final = "a service client with this name already exists"
NAME_REMOVED: Final = "the sessions of the removed client with this name are still being ended, which can take minutes"
CLIENT_IS_PUBLIC: Final = "belongs to a public client, which has no secret"
"""The message for the field `name` if an administrator tries to renew the secret of a public client."""

AnyClientSettings = Settings | ClientCommandSettings
"""The settings of the service, or of the commands about clients."""


class Credentials(NamedTuple):
    """The credentials that a client sends with each request (RFC 6749, section 2.3.1)."""

    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"Credentials(client_id={self.client_id!r})"


async def find_site(database: Database | Transaction, name: str) -> Client | None:
    """Return the site with this name, without its logo; None if there is no such site.

    For a name that no client can have, the function returns None without a query.
    """
    return await database.row(queries.FIND_SITE, name=name) if is_client_name(name) else None


@dataclass(frozen=True, slots=True)
class ClientChanges:
    """The operations that add and change clients.

    In addition to the rules of `build_client`, they check what a client refers to: apps, resources and the URL for
    logout tokens. They also check that a site's name is neither the audience nor the id of an app.
    """

    database: Database
    resolver: NameResolver
    settings: AnyClientSettings

    async def add(
        self, name: str, options: Mapping[str, Any], *, by: Actor = OPERATOR, now: datetime
    ) -> tuple[Client, Credentials | None]:
        """Add a client with these options, whose names are fields of `Client`. Return the client and its credentials.

        The credentials are None for a public client, because it has no secret.

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
        """Change these fields of a client, and return the changed client.

        A site's sessions continue, with the scopes that the site still has. Null, false or an empty list clears an
        optional field.

        Raises: NotFound, if there is no such client; WrongClient, if a value is invalid, or if the change is not
        allowed.
        """
        changes = _with_known_resources(changes, self.settings.resources)
        kinds = await _kinds_of_apps(self.database, self.settings)
        await self._check_references(changes, kinds)
        async with self.database.begin() as transaction:
            before = await transaction.row(queries.LOCK, name=name)
            if before is None:
                raise NotFound(NO_SUCH_CLIENT)
            after = change_client(before, changes)
            self._check_name_of_site(after, kinds)
            values = after.model_dump()
            changed_fields = [field for field, value in values.items() if value != getattr(before, field)]
            if changed_fields:
                await transaction.run(queries.CHANGE, client=after)
                data = {"name": name, "scopes": after.scopes, "fields": changed_fields}
                await record_event(transaction, EventType.CLIENT_CHANGED, by=by, at=now, data=data)
        return before.model_copy(update=values)

    async def _check_references(self, values: Mapping[str, Any], kinds: Mapping[str, AppKind]) -> None:
        """Check the apps that these fields name, and the URL for logout tokens.

        `kinds` contains the kind of each app, by the app's id. An unknown app counts as a mini-program that might be
        added later, so it is refused only as another kind of app.

        Raises: WrongClient, if an app or the URL is refused.
        """
        for field, (kind, rule) in APP_FIELDS.items():
            app_id = values.get(field)
            if app_id and kinds.get(app_id, "mini_program") != kind:
                raise WrongClient(field, rule)
        uri = values.get("backchannel_logout_uri")
        if uri:
            if "#" in uri:
                raise WrongClient("backchannel_logout_uri", _("must not contain a fragment"))
            try:
                await check_url(uri, resolver=self.resolver)
            except WrongValue as exc:
                raise WrongClient("backchannel_logout_uri", exc.text) from None

    def _check_name_of_site(self, client: Client, app_ids: Collection[str]) -> None:
        """Check that a site's name is neither the audience nor the id of an app. Raises: WrongClient."""
        if client.is_site and (client.name == self.settings.audience or client.name in app_ids):
            raise WrongClient(
                "name",
                _(
                    "must not be the name of a site, because the audience or an app already has this name. Services "
                    "couldn't distinguish the tokens"
                ),
            )


async def add_client(database: Database, client: Client, *, by: Actor = OPERATOR, now: datetime) -> Credentials | None:
    """Add a client, and return its credentials; None for a public client. wxauth stores only the hash of the secret.

    Raises: NameTaken, if a client has the name, or if a removed client with this name is not deleted yet.
    """
    secret = None if client.is_public else new_secret()
    secret_hash = None if secret is None else hash_of(secret)
    async with database.begin() as transaction:
        is_added = await transaction.value(queries.ADD, client=client, secret_hash=secret_hash, now=now) is not None
        if is_added:
            data = {"name": client.name, "scopes": client.scopes}
            await record_event(transaction, EventType.CLIENT_ADDED, by=by, at=now, data=data)
    if not is_added:
        sessions_left = await database.value(queries.SESSIONS_LEFT, name=client.name)
        raise NameTaken(NAME_TAKEN if sessions_left is None else f"{NAME_REMOVED}: {sessions_left} are left")
    return None if secret is None else Credentials(client.name, secret)


async def renew_secret(
    database: Database, name: str, *, at_once: bool = False, by: Actor = OPERATOR, now: datetime
) -> tuple[Credentials, Sequence[str]]:
    """Give a client a new secret. Return its new credentials and its scopes.

    The previous secret still works for `FORMER_SECRET_KEPT`, but with `at_once`, it stops working immediately. Older
    secrets no longer work.

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
        raise NotFound(NO_SUCH_CLIENT)
    return Credentials(name, secret), scopes


async def remove_client(database: Database, name: str, *, by: Actor = OPERATOR, now: datetime) -> None:
    """Remove a client, so that its requests fail. End a page of its sessions. Housekeeping ends the remaining sessions.

    If the client was removed before, but is still stored, the function ends a page of its remaining sessions.

    Raises: NotFound, if there is no such client, and no removed client with this name is left.
    """
    async with database.begin() as transaction:
        is_removed = await transaction.value(queries.REMOVE, name=name, by=by.name) is not None
        if is_removed:
            await record_event(transaction, EventType.CLIENT_REMOVED, by=by, at=now, data={"name": name})
    if not is_removed and await database.value(queries.SESSIONS_LEFT, name=name) is None:
        raise NotFound(NO_SUCH_CLIENT)
    with suppress(StorageUnavailable):  # the client stays removed even if ending the sessions fails
        await queries.end_removed_page(database, size=REMOVED_PAGE_SIZE, name=name, now=now)


async def end_sessions_left(database: Database, name: str) -> AsyncIterator[int]:
    """End the remaining sessions of a removed client, page by page, until the client itself is deleted.

    Yield the number of remaining sessions at the start, and again after at most `_PAGES_PER_REPORT` pages. If no
    removed client has this name, yield nothing. Commands call this function, so that operators do not need to wait for
    housekeeping.
    """
    while (sessions_left := await database.value(queries.SESSIONS_LEFT, name=name)) is not None:
        yield sessions_left
        for _attempt in range(_PAGES_PER_REPORT):
            now = await database.time()
            page = await queries.end_removed_page(database, size=REMOVED_PAGE_SIZE, name=name, now=now)
            if page is None or not page.rows:  # another worker is ending the sessions, or their users are locked
                await asyncio.sleep(_WAIT_FOR_OTHERS_SECONDS)
            elif page.is_last:
                break


async def ensure_own_client(database: Database, name: str, *, now: datetime, **fields: Any) -> None:
    """Add or replace a public client that belongs to wxauth, such as the console, or an example client of the desk.

    wxauth calls this function at each start if the console is enabled, and `wxauth-desk dev` calls it for its own
    clients. The name must be reserved. The scopes can include scopes that no command can give. `fields` are fields of
    `Client`.

    Raises: ValueError, if the name is not reserved.
    """
    if not is_own_name(name):
        raise ValueError("the name of wxauth's own client begins with wxauth")
    client = Client(name=name, is_public=True, id_token_alg=DEFAULT_ID_TOKEN_ALG, **fields)
    await database.run(queries.ADD_OR_REPLACE, client=client, secret_hash=None, now=now)


def _with_known_resources(values: Mapping[str, Any], known: Iterable[Resource]) -> Mapping[str, Any]:
    """Return these fields of a client, with each resource spelled as in the settings.

    Raises: WrongClient, if a resource is unknown.
    """
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
    """Return the kind of each app by its id, for the apps in the settings and the stored apps."""
    stored = {row.app_id: row.fields.get("kind", "mini_program") for row in await database.rows(STORED_APPS)}
    return stored | {app.app_id: app.kind for app in settings.apps}


async def clashing_clients(database: Database, settings: Settings) -> Sequence[str]:
    """Return the names of the sites whose name is also the audience or the id of an app.

    The tokens of these sites could be mistaken for other tokens.
    """
    names = [settings.audience, *await _kinds_of_apps(database, settings)]
    return await database.values(queries.SITES_NAMED, names=names)
