"""`/v1/admin/webhooks`: the webhooks that receive siblings' events."""

import re
from typing import Annotated, Final

from fastapi import Depends, Query
from pydantic import AfterValidator

from wxauth.errors import InvalidRequest, NameTaken, NotFound, Title
from wxauth.server.clients.models import CLIENT_NAME
from wxauth.server.events.webhook_bodies import (
    DeliveriesQuery,
    NewWebhook,
    ReplayedAnswer,
    ReplayRequest,
    TrialAnswer,
    WebhookAnswer,
    WebhookChange,
    new_webhook_answer,
    trial_answer,
    webhook_answer,
)
from wxauth.server.events.webhook_rows import DeliveryRow
from wxauth.server.events.webhooks import Webhooks
from wxauth.server.users.callers import AdministratorDep, FreshAdministratorDep
from wxauth.server.web.dependencies import provide
from wxauth.server.web.direct import Router
from wxauth.server.web.paging import Items, all_of, items_of

NO_SUCH_WEBHOOK: Final = NotFound("there is no such webhook")
_WRONG_URL: Final = InvalidRequest.of("url", "Must begin with https://, or with http:// in a private network")


def _possible_name(name: str) -> str:
    if not re.fullmatch(CLIENT_NAME, name):
        raise NotFound(NO_SUCH_WEBHOOK.detail)
    return name


WebhookName = Annotated[str, AfterValidator(_possible_name)]
"""The name in the path. A name that no webhook can have is answered with 404."""

router = Router("admin")

WebhooksDep = Annotated[Webhooks, Depends(provide(Webhooks))]


@router.get("/v1/admin/webhooks", summary=Title("List webhooks", "查看 Webhook"))
async def list_webhooks(_: AdministratorDep, webhooks: WebhooksDep) -> Items[WebhookAnswer]:
    """Every webhook, by name, without its secret."""
    return all_of(webhook_answer(webhook) for webhook in await webhooks.all())


@router.post("/v1/admin/webhooks", summary=Title("Add a webhook", "添加 Webhook"), failures=[_WRONG_URL, NameTaken])
async def add_webhook(administrator: FreshAdministratorDep, webhooks: WebhooksDep, body: NewWebhook) -> WebhookAnswer:
    """Send events to a URL from now on, signed as Standard Webhooks specifies. Only this answer has the `secret`."""
    new = await webhooks.add(body.name, url=body.url, types=body.types or (), by=administrator)
    return new_webhook_answer(new)


@router.get(
    "/v1/admin/webhooks/{name}", summary=Title("Read a webhook", "查看某个 Webhook"), failures=[NO_SUCH_WEBHOOK]
)
async def read_webhook(_: AdministratorDep, webhooks: WebhooksDep, name: WebhookName) -> WebhookAnswer:
    """A webhook, without its secret."""
    return webhook_answer(await webhooks.read(name))


@router.patch(
    "/v1/admin/webhooks/{name}",
    summary=Title("Change, enable or disable a webhook", "修改、启用或停用 Webhook"),
    failures=[_WRONG_URL, NO_SUCH_WEBHOOK],
)
async def change_webhook(
    administrator: FreshAdministratorDep, webhooks: WebhooksDep, name: WebhookName, body: WebhookChange
) -> WebhookAnswer:
    """Set the given fields; others are unchanged. Events held while a webhook is disabled are sent later."""
    changed = await webhooks.change(name, url=body.url, types=body.types, is_enabled=body.is_enabled, by=administrator)
    return webhook_answer(changed)


@router.delete(
    "/v1/admin/webhooks/{name}", summary=Title("Remove a webhook", "删除 Webhook"), failures=[NO_SUCH_WEBHOOK]
)
async def remove_webhook(administrator: FreshAdministratorDep, webhooks: WebhooksDep, name: WebhookName) -> None:
    """Send nothing more to this webhook. Its pending deliveries are dropped."""
    await webhooks.remove(name, by=administrator)


@router.post(
    "/v1/admin/webhooks/{name}/test", summary=Title("Test a webhook", "测试 Webhook"), failures=[NO_SUCH_WEBHOOK]
)
async def test_webhook(administrator: AdministratorDep, webhooks: WebhooksDep, name: WebhookName) -> TrialAnswer:
    """Send one `webhook.test` now. The answer is 200 with the webhook's status, or with an `error` and no status."""
    return trial_answer(await webhooks.send_test(name, by=administrator))


@router.post(
    "/v1/admin/webhooks/{name}/secret",
    summary=Title("Rotate a webhook's secret", "更换 Webhook 的密钥"),
    failures=[NO_SUCH_WEBHOOK],
)
async def renew_webhook_secret(
    administrator: FreshAdministratorDep, webhooks: WebhooksDep, name: WebhookName
) -> WebhookAnswer:
    """Make a new `secret`. Only this answer has it. The former one also signs for another 24 hours."""
    return new_webhook_answer(await webhooks.renew_secret(name, by=administrator))


@router.get(
    "/v1/admin/webhooks/{name}/deliveries", summary=Title("List deliveries", "查看投递记录"), failures=[NO_SUCH_WEBHOOK]
)
async def list_deliveries(
    _: AdministratorDep, webhooks: WebhooksDep, name: WebhookName, query: Annotated[DeliveriesQuery, Query()]
) -> Items[DeliveryRow]:
    """The deliveries of the last 30 days, sent and pending, the newest first."""
    return items_of(await webhooks.deliveries_of(name, query.state, before=query.cursor, limit=query.limit))


@router.post(
    "/v1/admin/webhooks/{name}/replay", summary=Title("Replay events", "重新投递事件"), failures=[NO_SUCH_WEBHOOK]
)
async def replay_deliveries(
    _: AdministratorDep, webhooks: WebhooksDep, name: WebhookName, body: ReplayRequest
) -> ReplayedAnswer:
    """Deliver one event again, or all events since a time, of the webhook's types. Each keeps its `webhook-id`."""
    replayed = await webhooks.replay(name, event_id=body.event_id, since=body.since)
    return {"replayed": replayed}
