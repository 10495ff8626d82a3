"""`/v1/admin/clients`: administrators say which services may ask, and which sites may log people in."""

from typing import Final

from fastapi import APIRouter

from wxauth.errors import InvalidRequest, NameTaken, NotFound, PayloadTooLarge
from wxauth.server.clients import clients
from wxauth.server.clients.bodies import (
    EXAMPLE_CLIENT,
    EXAMPLE_CLIENTS,
    EXAMPLE_NEW_CLIENT,
    EXAMPLE_SECRET,
    ClientAnswer,
    ClientChangeRequest,
    ClientName,
    ClientRequest,
    ClientsAnswer,
    ClientSecretAnswer,
    NewClientAnswer,
    client_answer,
    new_client_answer,
)
from wxauth.server.clients.rows import all_clients
from wxauth.server.clients.uris import URI_RULE
from wxauth.server.core.services import ServicesDep
from wxauth.server.core.tables import AddedClient
from wxauth.server.users.callers import AdministratorDep, FreshAdministratorDep
from wxauth.server.web.answers import BEARER_SECURITY, FOR_ADMINISTRATORS, FOR_FRESH_ADMINISTRATORS, answers, failures
from wxauth.server.web.direct import DirectRoute, operation_id

router = APIRouter(route_class=DirectRoute, tags=["admin"], generate_unique_id_function=operation_id)

_NO_SUCH_CLIENT: Final = NotFound(clients.NO_SUCH_CLIENT)
_WRONG_NAME: Final = InvalidRequest.of("name", clients.NAME_RULE)
_WRONG_URI: Final = clients.WrongClient("redirect_uris", URI_RULE)
_PUBLIC: Final = InvalidRequest.of(*clients.HAS_NO_SECRET)


@router.get(
    "/v1/admin/clients",
    summary="List the service clients",
    responses=answers(EXAMPLE_CLIENTS, *FOR_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def list_clients(_: AdministratorDep, services: ServicesDep) -> ClientsAnswer:
    """Every service client, sites among them, without its secret."""
    found, now = await all_clients(services.database), services.clock()
    return {"items": [client_answer(client, now=now) for client in found], "next_cursor": None}


@router.post(
    "/v1/admin/clients",
    summary="Add a service client",
    responses=answers(EXAMPLE_NEW_CLIENT, _WRONG_URI, PayloadTooLarge, NameTaken, *FOR_FRESH_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def add_client(
    administrator: FreshAdministratorDep, services: ServicesDep, body: ClientRequest
) -> NewClientAnswer:
    """The service is let in by HTTP Basic. With `redirect_uris` or `device` the client is a site that logs people in.

    The secret is in this answer alone: only its hash is stored. A public client has no secret.
    """
    now = services.clock()
    reserved = clients.names_of_others(services.settings)
    client = clients.asked_for(body.name, body.model_dump(exclude={"name"}), reserved=reserved)
    credentials = await clients.add_client(services.database, client, by=administrator, now=now)
    added = AddedClient(**client.model_dump(), created_at=now)
    return new_client_answer(added, credentials, now=now)


@router.patch(
    "/v1/admin/clients/{name}",
    summary="Change a service client",
    responses=answers(EXAMPLE_CLIENT, _WRONG_URI, _NO_SUCH_CLIENT, PayloadTooLarge, *FOR_FRESH_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def change_client(
    administrator: FreshAdministratorDep, services: ServicesDep, name: ClientName, body: ClientChangeRequest
) -> ClientAnswer:
    """Set the fields that are named; the others stay. A list that is named replaces the former list.

    `redirect_uris` or `device` make a site of a service; a site remains a site. A site's sessions go on, but their next
    tokens lack the scopes that the site has lost.
    """
    now = services.clock()
    changed = await clients.change_client(
        services.database,
        name,
        body.model_dump(exclude_unset=True),
        reserved=clients.names_of_others(services.settings),
        by=administrator,
        now=now,
    )
    return client_answer(changed, now=now)


@router.delete(
    "/v1/admin/clients/{name}",
    summary="Remove a service client",
    status_code=204,
    responses=failures(_WRONG_NAME, _NO_SUCH_CLIENT, *FOR_FRESH_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def remove_client(administrator: FreshAdministratorDep, services: ServicesDep, name: ClientName) -> None:
    """The client is refused from now on. A site's sessions and open scans end."""
    await clients.remove_client(services.database, name, by=administrator, now=services.clock())


@router.post(
    "/v1/admin/clients/{name}/secret",
    summary="Give a service client another secret",
    responses=answers(EXAMPLE_SECRET, _PUBLIC, _NO_SUCH_CLIENT, *FOR_FRESH_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def renew_client_secret(
    administrator: FreshAdministratorDep, services: ServicesDep, name: ClientName
) -> ClientSecretAnswer:
    """The new secret is in the answer, this once. The former one works for 24 hours more."""
    credentials, scopes = await clients.renew_secret(services.database, name, by=administrator, now=services.clock())
    return {
        "name": name,
        "client_id": credentials.client_id,
        "client_secret": credentials.client_secret,
        "scopes": list(scopes),
    }
