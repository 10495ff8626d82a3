"""The routes of `/v1/admin/webhooks`, which let administrators manage webhooks.

A webhook sends events to another service.
"""

from typing import Annotated, Final

from fastapi import Depends, Query

from wxauth.errors import NameTaken, NotFound
from wxauth.events.models import DeliveryRow, WebhookAnswer
from wxauth.events.schemas import (
    DeliveriesQuery,
    NewWebhook,
    NewWebhookAnswer,
    ReplayedAnswer,
    ReplayRequest,
    TrialAnswer,
    WebhookChange,
    trial_answer,
)
from wxauth.events.webhooks import NO_SUCH_WEBHOOK, Webhooks
from wxauth.i18n import lazy_gettext as _
from wxauth.users.callers import AdministratorDep, FreshAdministratorDep
from wxauth.web.dependencies import provide
from wxauth.web.direct import Router
from wxauth.web.pages import Items, all_of, items_of
from wxauth_guard.errors import InvalidRequest

_NO_SUCH_WEBHOOK: Final = NotFound(NO_SUCH_WEBHOOK)
_WRONG_URL: Final = InvalidRequest.of("url", "Must begin with https://, or with http:// on a private network")
router = Router("admin")
WebhooksDep = Annotated[Webhooks, Depends(provide(Webhooks))]


@router.get("/v1/admin/webhooks", summary=_("List webhooks"))
async def list_webhooks(_administrator: AdministratorDep, webhooks: WebhooksDep) -> Items[WebhookAnswer]:
    """Return all webhooks, sorted by name, without their secrets."""
    return all_of(webhook.shown for webhook in await webhooks.all())


@router.post("/v1/admin/webhooks", summary=_("Add a webhook"), failures=[_WRONG_URL, NameTaken])
async def add_webhook(
    administrator: FreshAdministratorDep, webhooks: WebhooksDep, body: NewWebhook
) -> NewWebhookAnswer:
    """Add a webhook, which sends events to a URL, signed as Standard Webhooks specifies.

    Only this response contains the `secret`.
    """
    return await webhooks.add(body.name, url=body.url, types=body.types or (), by=administrator)


@router.get("/v1/admin/webhooks/{name}", summary=_("Read a webhook"), failures=[_NO_SUCH_WEBHOOK])
async def read_webhook(_administrator: AdministratorDep, webhooks: WebhooksDep, name: str) -> WebhookAnswer:
    """Return a webhook, without its secret."""
    return (await webhooks.read(name)).shown


@router.patch(
    "/v1/admin/webhooks/{name}",
    summary=_("Change, enable or disable a webhook"),
    failures=[_WRONG_URL, _NO_SUCH_WEBHOOK],
)
async def change_webhook(
    administrator: FreshAdministratorDep, webhooks: WebhooksDep, name: str, body: WebhookChange
) -> WebhookAnswer:
    """Set the given fields, and leave the others unchanged.

    Deliveries that are pending when a webhook is disabled are sent after you enable it. Events that occur while the
    webhook is disabled are not queued, so replay them afterwards.
    """
    return await webhooks.change(name, url=body.url, types=body.types, is_enabled=body.is_enabled, by=administrator)


@router.delete("/v1/admin/webhooks/{name}", summary=_("Remove a webhook"), failures=[_NO_SUCH_WEBHOOK])
async def remove_webhook(administrator: FreshAdministratorDep, webhooks: WebhooksDep, name: str) -> None:
    """Remove a webhook. wxauth no longer sends its pending deliveries, and deletes them later."""
    await webhooks.remove(name, by=administrator)


@router.post("/v1/admin/webhooks/{name}/test", summary=_("Test a webhook"), failures=[_NO_SUCH_WEBHOOK])
async def test_webhook(administrator: AdministratorDep, webhooks: WebhooksDep, name: str) -> TrialAnswer:
    """Send one `webhook.test` message now.

    The response has the status 200, and contains the `status` that the webhook has returned. If the webhook has not
    responded, this `status` is null, and `error` contains the reason.
    """
    return trial_answer(await webhooks.send_test(name, by=administrator))


@router.post("/v1/admin/webhooks/{name}/secret", summary=_("Rotate a webhook's secret"), failures=[_NO_SUCH_WEBHOOK])
async def renew_webhook_secret(
    administrator: FreshAdministratorDep, webhooks: WebhooksDep, name: str
) -> NewWebhookAnswer:
    """Replace the webhook's `secret` with a new secret, which only this response contains.

    For another 24 hours, wxauth also signs with the previous secret.
    """
    return await webhooks.renew_secret(name, by=administrator)


@router.get("/v1/admin/webhooks/{name}/deliveries", summary=_("List deliveries"), failures=[_NO_SUCH_WEBHOOK])
async def list_deliveries(
    _administrator: AdministratorDep, webhooks: WebhooksDep, name: str, query: Annotated[DeliveriesQuery, Query()]
) -> Items[DeliveryRow]:
    """Return the pending deliveries, and the finished deliveries of the last 30 days, the newest first."""
    return items_of(await webhooks.deliveries_of(name, query))


@router.post("/v1/admin/webhooks/{name}/replay", summary=_("Replay events"), failures=[_NO_SUCH_WEBHOOK])
async def replay_deliveries(
    administrator: AdministratorDep, webhooks: WebhooksDep, name: str, body: ReplayRequest
) -> ReplayedAnswer:
    """Deliver one event again, or all events since a time, but only events of the types that the webhook receives.

    Each delivery keeps its `webhook-id`.
    """
    replayed = await webhooks.replay(name, by=administrator, event_id=body.event_id, since=body.since)
    return ReplayedAnswer(replayed=replayed)
