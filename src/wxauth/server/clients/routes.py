"""`/v1/admin/clients`: administrators list, add, change and remove services and sites."""

from collections.abc import Mapping
from typing import Any, Final

from wxauth.errors import InvalidRequest, NameTaken, NotFound, Title
from wxauth.server.apps.managing import AppsDep
from wxauth.server.apps.registry import Apps
from wxauth.server.clients import clients
from wxauth.server.clients.bodies import (
    ClientAnswer,
    ClientChangeRequest,
    ClientName,
    ClientRequest,
    ClientSecretAnswer,
    NewClientAnswer,
    client_answer,
    new_client_answer,
)
from wxauth.server.clients.models import AddedClient
from wxauth.server.clients.rows import all_clients
from wxauth.server.clients.service_clients import NameResolverDep
from wxauth.server.clients.uris import URI_RULE
from wxauth.server.users.callers import AdministratorDep, FreshAdministratorDep
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, SettingsDep
from wxauth.server.web.direct import Router
from wxauth.server.web.paging import Items, all_of

router = Router("admin")

_NO_SUCH_CLIENT: Final = NotFound(clients.NO_SUCH_CLIENT)
_WRONG_URI: Final = clients.WrongClient("redirect_uris", URI_RULE)
_PUBLIC: Final = InvalidRequest.of(*clients.HAS_NO_SECRET)


@router.get("/v1/admin/clients", summary=Title("List clients", "列出客户端"))
async def list_clients(_: AdministratorDep, database: DatabaseDep, clock: ClockDep) -> Items[ClientAnswer]:
    """Every client (services and sites), without its secret."""
    found, now = await all_clients(database), clock()
    return all_of(client_answer(client, now=now) for client in found)


@router.post("/v1/admin/clients", summary=Title("Add a client", "添加客户端"), failures=[_WRONG_URI, NameTaken])
async def add_client(
    administrator: FreshAdministratorDep,
    settings: SettingsDep,
    apps: AppsDep,
    name_resolver: NameResolverDep,
    database: DatabaseDep,
    clock: ClockDep,
    body: ClientRequest,
) -> NewClientAnswer:
    """A service authenticates with HTTP Basic.

    With `redirect_uris` or `device`, the client is a site that logs users in. The secret is only in this answer: its
    hash is stored. A public client has no secret.
    """
    now = clock()
    client = clients.build_client(body.name, body.model_dump(exclude={"name"}))
    await _check_apps(apps, client.model_dump())
    await clients.refuse_wrong_receiver(client.model_dump(), name_resolver)
    clients.refuse_reserved(client, await clients.reserved_names(database, settings.audience, settings.apps))
    credentials = await clients.add_client(database, client, by=administrator, now=now)
    added = AddedClient(**client.model_dump(), created_at=now)
    return new_client_answer(added, credentials, now=now)


@router.patch(
    "/v1/admin/clients/{name}",
    summary=Title("Change a client", "修改客户端"),
    failures=[_WRONG_URI, _NO_SUCH_CLIENT],
)
async def change_client(
    administrator: FreshAdministratorDep,
    settings: SettingsDep,
    apps: AppsDep,
    name_resolver: NameResolverDep,
    database: DatabaseDep,
    clock: ClockDep,
    name: ClientName,
    body: ClientChangeRequest,
) -> ClientAnswer:
    """Set the given fields; others are unchanged.

    A given list replaces the former list. `redirect_uris` or `device` turn a service into a site; a site remains a
    site. A site's sessions continue, but their next tokens lack the scopes that the site has lost.
    """
    now, changes = clock(), body.model_dump(exclude_unset=True)
    await _check_apps(apps, changes)
    await clients.refuse_wrong_receiver(changes, name_resolver)
    changed = await clients.change_client(
        database,
        name,
        changes,
        reserved=await clients.reserved_names(database, settings.audience, settings.apps),
        by=administrator,
        now=now,
    )
    return client_answer(changed, now=now)


@router.delete("/v1/admin/clients/{name}", summary=Title("Remove a client", "移除客户端"), failures=[_NO_SUCH_CLIENT])
async def remove_client(
    administrator: FreshAdministratorDep, database: DatabaseDep, clock: ClockDep, name: ClientName
) -> None:
    """The client is refused from now on. A site's sessions and open scans end."""
    await clients.remove_client(database, name, by=administrator, now=clock())


@router.post(
    "/v1/admin/clients/{name}/secret",
    summary=Title("Rotate a client's secret", "更换客户端的密钥"),
    failures=[_PUBLIC, _NO_SUCH_CLIENT],
)
async def renew_client_secret(
    administrator: FreshAdministratorDep, database: DatabaseDep, clock: ClockDep, name: ClientName
) -> ClientSecretAnswer:
    """The new secret is only in this answer. The former one works for another 24 hours."""
    credentials, scopes = await clients.renew_secret(database, name, by=administrator, now=clock())
    return {
        "name": name,
        "client_id": credentials.client_id,
        "client_secret": credentials.client_secret,
        "scopes": list(scopes),
    }


async def _check_apps(apps: Apps, values: Mapping[str, Any]) -> None:
    """Check the kinds of the apps in these fields. Raises: WrongClient."""
    if clients.refers_to_apps(values):
        await apps.refresh()  # another replica may just have added the app
        clients.refuse_wrong_apps(values, {known.app.app_id: known.app.kind for known in apps.all()})
