"""The management of webhooks, for administrators and for the command line."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from wxauth.core.clock import Clock, first_id_at, new_id
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.sealing import Sealer, webhook_secret_context
from wxauth.core.services import part
from wxauth.core.trail import Actor, EventType
from wxauth.errors import NameTaken, NotFound, no_such
from wxauth.events import webhook_queries
from wxauth.events.feed_queries import PlacedEvent
from wxauth.events.models import DeliveryRow, DeliveryState, Webhook, WebhookAnswer
from wxauth.events.schemas import DeliveriesQuery, NewWebhookAnswer
from wxauth.events.sending import SendOutcome
from wxauth.events.webhook_deliveries import Deliveries
from wxauth.i18n import WrongValue
from wxauth.outbound.signatures import new_webhook_secret, shown_secret
from wxauth.outbound.urls import NameResolver, check_url
from wxauth.settings.settings import Settings
from wxauth.web.pages import Page
from wxauth_guard.errors import InvalidRequest

FORMER_SECRET_KEPT: Final = timedelta(hours=24)  # not all replicas of the receiver get the new secret at once
TEST_TYPE: Final = "webhook.test"
REPLAY_PAGE_SIZE: Final = 5000
NO_SUCH_WEBHOOK: Final = no_such("webhook")

log = get_logger()


@part
class Webhooks:
    clock: Clock
    sealer: Sealer
    database: Database
    deliveries: Deliveries
    name_resolver: NameResolver
    settings: Settings

    async def add(self, name: str, *, url: str, types: Sequence[EventType], by: Actor) -> NewWebhookAnswer:
        """Add a webhook, which receives all types of events if `types` is empty. Only this answer contains the secret.

        Raises: InvalidRequest, if wxauth refuses the URL; NameTaken.
        """
        await self._check_url(url)
        now, secret = self.clock(), new_webhook_secret()
        webhook_id = new_id(now)
        added = await self._write(
            EventType.WEBHOOK_ADDED,
            by,
            now=now,
            id=webhook_id,
            name=name,
            url=url,
            types=list(types),
            secret=self._sealed(secret, webhook_id),
            created_at=now,
        )
        return _with_secret(added, secret)

    async def all(self) -> Sequence[Webhook]:
        """Return every webhook, sorted by name."""
        return await self.database.rows(webhook_queries.ALL_WEBHOOKS)

    async def read(self, name: str) -> Webhook:
        """Return the webhook with this name. Raises: NotFound."""
        webhook = await self.database.row(webhook_queries.FIND_WEBHOOK, name=name)
        if webhook is None:
            raise NotFound(NO_SUCH_WEBHOOK)
        return webhook

    async def change(
        self,
        name: str,
        *,
        url: str | None = None,
        types: Sequence[EventType] | None = None,
        is_enabled: bool | None = None,
        by: Actor,
    ) -> WebhookAnswer:
        """Change the given fields. If the webhook becomes enabled, the deliveries that were pending are sent.

        Events that occurred while the webhook was disabled were not queued, so they must be replayed.

        Raises: NotFound; InvalidRequest, if wxauth refuses the URL.
        """
        if url is not None:
            await self.read(name)  # an unknown webhook is reported before a wrong URL
            await self._check_url(url)
        changed = await self._write(
            EventType.WEBHOOK_CHANGED,
            by,
            now=self.clock(),
            name=name,
            url=url,
            types=None if types is None else list(types),
            is_enabled=is_enabled,
        )
        self.deliveries.wake()
        return changed.shown

    async def remove(self, name: str, *, by: Actor) -> None:
        """Raises: NotFound."""
        await self._write(EventType.WEBHOOK_REMOVED, by, now=self.clock(), name=name)

    async def renew_secret(self, name: str, *, by: Actor) -> NewWebhookAnswer:
        """Replace a webhook's secret. The former secret also signs for a day. Raises: NotFound."""
        webhook, secret = await self.read(name), new_webhook_secret()
        now = self.clock()
        # The webhook is found by its id, because the secret is sealed for this id. The name might belong to a new
        # webhook by now.
        renewed = await self._write(
            EventType.WEBHOOK_SECRET_RENEWED,
            by,
            now=now,
            id=webhook.id,
            secret=self._sealed(secret, webhook.id),
            former_until=now + FORMER_SECRET_KEPT,
        )
        return _with_secret(renewed, secret)

    async def send_test(self, name: str, *, by: Actor) -> SendOutcome:
        """Send a test message to a webhook, even if it is disabled. Raises: NotFound."""
        now = self.clock()
        webhook = await self.read(name)
        event: dict[str, object] = {
            "id": new_id(now),
            "type": TEST_TYPE,
            "at": now,
            "user_id": None,
            "app_id": None,
            "actor": by.name,
            "data": {},
        }
        return await self.deliveries.sign_and_send(webhook.id, webhook, event, now=now)

    async def deliveries_of(self, name: str, query: DeliveriesQuery) -> Page[DeliveryRow]:
        """Return a page of a webhook's deliveries, the newest first. Raises: NotFound."""
        webhook = await self.read(name)
        states = list(DeliveryState) if query.state is None else [query.state]
        rows = await self.database.rows(
            webhook_queries.LIST_DELIVERIES,
            receiver_id=webhook.id,
            states=states,
            before=query.cursor,
            limit=query.limit + 1,  # the additional row shows that there is a next page
        )
        return Page.of(rows, query.limit)

    async def replay(
        self,
        name: str,
        *,
        by: Actor,
        event_id: UUID | None = None,
        since: datetime | None = None,
        page_size: int = REPLAY_PAGE_SIZE,
    ) -> int:
        """Queue one event again, or all events since a time. Return how many were queued.

        Events of types that the webhook does not get are left out, and events that a process is sending to it now.
        Give either `event_id` or `since`.

        Raises: NotFound, if there is no such webhook, or if the feed does not contain the event.
        """
        webhook = await self.read(name)
        if event_id is not None and since is None:
            replayed = await self._queue_again(webhook, [await self._placed_event(event_id)])
        elif since is not None and event_id is None:
            replayed = await self._queue_all_again(webhook, since, page_size=page_size)
        else:
            raise ValueError("a replay needs either event_id or since")
        log.info("webhook_replayed", webhook=name, events=replayed, actor=by.name)
        self.deliveries.wake()
        return replayed

    async def _placed_event(self, event_id: UUID) -> PlacedEvent:
        event = await self.database.row(webhook_queries.FIND_PLACED, event_id=event_id)
        if event is None:
            raise NotFound("this event doesn't exist, or isn't sent to services")
        return event

    async def _queue_all_again(self, webhook: Webhook, since: datetime, *, page_size: int) -> int:
        queued = 0
        after: UUID | None = first_id_at(since)  # an event's id begins with its time
        while after is not None:
            events, after = await webhook_queries.placed_after(self.database, after, size=page_size)
            queued += await self._queue_again(webhook, events)
        return queued

    async def _queue_again(self, webhook: Webhook, events: Sequence[PlacedEvent]) -> int:
        async with self.database.begin(replan=True) as transaction:
            return await webhook_queries.queue_again(transaction, webhook, events, now=self.clock())

    async def _write(self, kind: EventType, by: Actor, *, now: datetime, **values: object) -> Webhook:
        written = await webhook_queries.write_webhook(self.database, kind, by=by, now=now, **values)
        if written is None:
            if kind is EventType.WEBHOOK_ADDED:
                raise NameTaken("a webhook with this name already exists")
            raise NotFound(NO_SUCH_WEBHOOK)
        log.info(kind.log_event, webhook=written.name, actor=by.name)
        return written

    def _sealed(self, secret: bytes, webhook_id: UUID) -> bytes:
        return self.sealer.seal(secret, context=webhook_secret_context(webhook_id))

    async def _check_url(self, url: str) -> None:
        try:
            await check_url(url, resolver=self.name_resolver, is_proxied=self.settings.receivers_proxy is not None)
        except WrongValue as exc:
            raise InvalidRequest.of("url", exc.text) from None


def _with_secret(webhook: Webhook, secret: bytes) -> NewWebhookAnswer:
    return NewWebhookAnswer(**vars(webhook.shown), secret=shown_secret(secret))
