"""`/v1/admin/webhooks`: the addresses to which siblings' events are sent."""

import re
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request

from wxauth.errors import InvalidRequest, NameTaken, NotFound, PayloadTooLarge
from wxauth.server.core.services import ServicesDep
from wxauth.server.core.tables import CLIENT_NAME
from wxauth.server.events import webhooks
from wxauth.server.events.webhook_bodies import (
    EXAMPLE_DELIVERIES,
    EXAMPLE_NEW_WEBHOOK,
    EXAMPLE_REPLAYED,
    EXAMPLE_TRIAL,
    EXAMPLE_WEBHOOK,
    EXAMPLE_WEBHOOKS,
    DeliveriesAnswer,
    DeliveriesQuery,
    NewWebhook,
    ReplayedAnswer,
    ReplayRequest,
    TrialAnswer,
    WebhookAnswer,
    WebhookChange,
    WebhooksAnswer,
    deliveries_answer,
    new_webhook_answer,
    trial_answer,
    webhook_answer,
    webhooks_answer,
)
from wxauth.server.users.callers import AdministratorDep, FreshAdministratorDep
from wxauth.server.web.answers import BEARER_SECURITY, FOR_ADMINISTRATORS, FOR_FRESH_ADMINISTRATORS, answers, failures
from wxauth.server.web.direct import DirectRoute, operation_id
from wxauth.server.web.paging import not_stored

NO_SUCH_WEBHOOK: Final = NotFound("there is no such webhook")
_WRONG_URL: Final = InvalidRequest.of("url", "Should begin with https://, or with http:// in a private network")


async def webhook_name(request: Request) -> str:
    """The name in the path. Raises: NotFound, if no webhook can have that name."""
    name: str = request.path_params["name"]
    if not re.fullmatch(CLIENT_NAME, name):
        raise NO_SUCH_WEBHOOK
    return name


WebhookNameDep = Annotated[str, Depends(webhook_name)]
"""The name of a webhook. FastAPI would document a 422 for a parameter of the endpoint."""

_NAMED: Final = {
    **BEARER_SECURITY,
    "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
}

lists = APIRouter(tags=["admin"], dependencies=[Depends(not_stored)], generate_unique_id_function=operation_id)
router = APIRouter(route_class=DirectRoute, tags=["admin"], generate_unique_id_function=operation_id)


@router.get(
    "/v1/admin/webhooks",
    summary="List webhooks",
    responses=answers(EXAMPLE_WEBHOOKS, *FOR_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def list_webhooks(_: AdministratorDep, services: ServicesDep) -> WebhooksAnswer:
    """Every webhook, by name, without its secret."""
    return webhooks_answer(await webhooks.list_webhooks(services))


@router.post(
    "/v1/admin/webhooks",
    summary="Add a webhook",
    responses=answers(EXAMPLE_NEW_WEBHOOK, _WRONG_URL, PayloadTooLarge, NameTaken, *FOR_FRESH_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def add_webhook(administrator: FreshAdministratorDep, services: ServicesDep, body: NewWebhook) -> WebhookAnswer:
    """Send events to a URL from now on, signed by Standard Webhooks. The answer holds the `secret`, this once."""
    new = await webhooks.add_webhook(services, body.name, url=body.url, types=body.types or (), by=administrator)
    return new_webhook_answer(new)


@router.get(
    "/v1/admin/webhooks/{name}",
    summary="Read a webhook",
    responses=answers(EXAMPLE_WEBHOOK, NO_SUCH_WEBHOOK, *FOR_ADMINISTRATORS),
    openapi_extra=_NAMED,
)
async def read_webhook(_: AdministratorDep, services: ServicesDep, name: WebhookNameDep) -> WebhookAnswer:
    """A webhook, without its secret."""
    return webhook_answer(await webhooks.read_webhook(services, name))


@router.patch(
    "/v1/admin/webhooks/{name}",
    summary="Change, enable or disable a webhook",
    responses=answers(EXAMPLE_WEBHOOK, _WRONG_URL, NO_SUCH_WEBHOOK, PayloadTooLarge, *FOR_FRESH_ADMINISTRATORS),
    openapi_extra=_NAMED,
)
async def change_webhook(
    administrator: FreshAdministratorDep, services: ServicesDep, name: WebhookNameDep, body: WebhookChange
) -> WebhookAnswer:
    """Set the given fields; the rest stays. Events that waited while a webhook was disabled are sent once enabled."""
    changed = await webhooks.change_webhook(
        services, name, url=body.url, types=body.types, is_enabled=body.is_enabled, by=administrator
    )
    return webhook_answer(changed)


@router.delete(
    "/v1/admin/webhooks/{name}",
    summary="Remove a webhook",
    status_code=204,
    responses=failures(NO_SUCH_WEBHOOK, *FOR_FRESH_ADMINISTRATORS),
    openapi_extra=_NAMED,
)
async def remove_webhook(administrator: FreshAdministratorDep, services: ServicesDep, name: WebhookNameDep) -> None:
    """Send this webhook nothing any more. Its pending deliveries are dropped."""
    await webhooks.remove_webhook(services, name, by=administrator)


@router.post(
    "/v1/admin/webhooks/{name}/test",
    summary="Try a webhook out",
    responses=answers(EXAMPLE_TRIAL, NO_SUCH_WEBHOOK, *FOR_ADMINISTRATORS),
    openapi_extra=_NAMED,
)
async def test_webhook(administrator: AdministratorDep, services: ServicesDep, name: WebhookNameDep) -> TrialAnswer:
    """Send one `webhook.test` now, and tell the outcome: a status, or an `error` and no status. 200 in any case."""
    return trial_answer(await webhooks.try_webhook(services, name, by=administrator))


@router.post(
    "/v1/admin/webhooks/{name}/secret",
    summary="Renew a webhook's secret",
    responses=answers(EXAMPLE_NEW_WEBHOOK, NO_SUCH_WEBHOOK, *FOR_FRESH_ADMINISTRATORS),
    openapi_extra=_NAMED,
)
async def renew_webhook_secret(
    administrator: FreshAdministratorDep, services: ServicesDep, name: WebhookNameDep
) -> WebhookAnswer:
    """Make another `secret`, shown this once. The former one signs too for 24 hours, so that no message is refused."""
    return new_webhook_answer(await webhooks.renew_secret(services, name, by=administrator))


@lists.get(
    "/v1/admin/webhooks/{name}/deliveries",
    summary="List deliveries",
    responses=answers(
        EXAMPLE_DELIVERIES,
        InvalidRequest.of("state", "Input should be 'pending', 'delivered' or 'failed'"),
        NO_SUCH_WEBHOOK,
        *FOR_ADMINISTRATORS,
    ),
    openapi_extra=_NAMED,
)
async def list_deliveries(
    _: AdministratorDep, services: ServicesDep, name: WebhookNameDep, query: Annotated[DeliveriesQuery, Query()]
) -> DeliveriesAnswer:
    """The deliveries of the last 30 days, sent and waiting, the newest first."""
    return deliveries_answer(
        await webhooks.list_deliveries(services, name, query.state, before=query.cursor, limit=query.limit)
    )


@router.post(
    "/v1/admin/webhooks/{name}/replay",
    summary="Deliver events once more",
    responses=answers(
        EXAMPLE_REPLAYED,
        InvalidRequest.of("body", "Wants event_id or since"),
        NO_SUCH_WEBHOOK,
        PayloadTooLarge,
        *FOR_ADMINISTRATORS,
    ),
    openapi_extra=_NAMED,
)
async def replay_deliveries(
    _: AdministratorDep, services: ServicesDep, name: WebhookNameDep, body: ReplayRequest
) -> ReplayedAnswer:
    """One event, or all events since a time, if the webhook takes their types. Each keeps its `webhook-id`."""
    replayed = await webhooks.replay(services, name, event_id=body.event_id, since=body.since)
    return {"replayed": replayed}
