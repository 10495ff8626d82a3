"""The delivery of events to webhooks, and of logout tokens to sites.

A process leases one due delivery for half a minute, which is longer than any attempt, and attempts it once. If the
attempt fails, a process leases the delivery again after a pause, until it succeeds or finally fails. If a process is
killed, another process can lease its deliveries when their leases have ended. A receiver that works gets each delivery
at least once. It gets a delivery again only if its response was lost or too late, if the process did not store the
outcome, or if an administrator replays the event.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

import httpx
from pydantic_core import to_json

from wxauth.core import metrics
from wxauth.core.background import cancel, keep_doing
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.outages import outage_log
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer, webhook_secret_context
from wxauth.core.services import part
from wxauth.core.trail import SYSTEM, EventType
from wxauth.errors import StorageUnavailable
from wxauth.events.logout_tokens import BackchannelLogouts
from wxauth.events.models import DeliveryState, Webhook
from wxauth.events.sending import SendOutcome, send
from wxauth.events.webhook_queries import (
    RESUME_DELIVERIES,
    DeliveryOutcome,
    LeasedEvent,
    LeasedLogout,
    Priority,
    due_receivers,
    lease_delivery,
    settle_delivery,
    write_webhook,
)
from wxauth.outbound.signatures import signed_headers

LEASE: Final = timedelta(seconds=30)  # longer than any attempt
CHECK_PAUSE_SECONDS: Final = 0.5
RECEIVER_TIMEOUT_SECONDS: Final = 15.0
MAX_CONCURRENT: Final = 32  # for each priority, in one process
MAX_CONCURRENT_FOR_ONE: Final = 4  # for one receiver and each priority, in one process
RETRY_SCHEDULE: Final = (  # the pauses before the second attempt and all others, as Standard Webhooks recommends them
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    *(timedelta(hours=hours) for hours in (2, 5, 10, 14, 20, 24)),
)
SPREAD: Final = 0.1  # a fraction of each pause, so that retries do not all come at once
LONGEST_RETRY_AFTER: Final = timedelta(days=1)
# A webhook without a success for this long counts as unavailable: its next success makes its retries due.
OUTAGE: Final = timedelta(minutes=5)
RESUMED_AT_ONCE: Final = 1000  # in one transaction, which locks these deliveries
SHUTDOWN_SECONDS: Final = 3.0

_STORE_PAUSE_SECONDS: Final = 0.5

DELIVERIES: Final = metrics.Counter(
    "wxauth_webhook_deliveries",
    "Attempts to deliver an event, by webhook and outcome: delivered, retried (another attempt follows) or failed.",
    "webhook",
    "outcome",
)

log = get_logger()


@part
class Deliveries:
    database: Database
    sealer: Sealer
    clock: Clock
    logouts: BackchannelLogouts
    transport: httpx.AsyncBaseTransport
    patience: float = RECEIVER_TIMEOUT_SECONDS
    _tasks: set[asyncio.Task[None]] = field(init=False, default_factory=set)
    _awakened: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _is_closing: bool = field(init=False, default=False)
    # Each process logs only once that the former secret of a webhook cannot be decrypted.
    _reported_webhooks: set[UUID] = field(init=False, default_factory=set)
    _running: dict[Priority, Counter[UUID]] = field(  # the number of tasks for each receiver
        init=False, default_factory=lambda: {priority: Counter() for priority in Priority}
    )

    def wake(self) -> None:
        """Look for due deliveries now."""
        self._awakened.set()

    async def keep_delivering(self) -> None:
        """Start due deliveries forever, twice a second and after each `wake`."""

        async def wait_and_start() -> None:
            with suppress(TimeoutError):  # nobody has called `wake` during the pause
                async with asyncio.timeout(CHECK_PAUSE_SECONDS):
                    await self._awakened.wait()
            self._awakened.clear()
            await self.start_due()

        await keep_doing(wait_and_start, pause=0, failure_event="deliveries_held_up")

    async def start_due(self) -> None:
        """Start a task for each receiver and priority with due deliveries, within the limits."""
        for receiver_id, priority in await due_receivers(self.database, now=self.clock()):
            self._start_task(receiver_id, priority)

    async def drain(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def sign_and_send(
        self, webhook_id: UUID, webhook: Webhook | LeasedEvent, event: Mapping[str, Any], *, now: datetime
    ) -> SendOutcome:
        """Send an event once. A failure is returned, not raised.

        `event` has the fields of `EventToSend`. `webhook_id` is separate, because a LeasedEvent's `id` is the event's.
        """
        try:
            secrets = self._open_secrets(webhook_id, webhook, now=now)
        except CannotOpen as exc:
            log.error(
                "webhook_secret_not_unsealed",
                webhook=webhook.name,
                reason=str(exc),
                what_to_change=WRONG_SECRET_KEY,
            )
            return SendOutcome(status=None, milliseconds=0, error="the secret can't be decrypted")
        body = to_json({"type": event["type"], "timestamp": event["at"], "data": event})
        headers = {**signed_headers(str(event["id"]), body, secrets, now=now), "content-type": "application/json"}
        return await send(self.transport, webhook.url, content=body, headers=headers, patience=self.patience)

    async def aclose(self) -> None:
        """Wait `SHUTDOWN_SECONDS` for running attempts. Another process makes the deliveries that remain."""
        self._is_closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await self.drain()
        await cancel(self._tasks)

    def _start_task(self, receiver_id: UUID, priority: Priority) -> None:
        running = self._running[priority]
        has_task = running[receiver_id] > 0
        is_at_limit = running[receiver_id] >= MAX_CONCURRENT_FOR_ONE or running.total() >= MAX_CONCURRENT
        # A receiver without a task can always have one, even if the tasks of other receivers have reached the limit.
        if self._is_closing or (has_task and is_at_limit):
            return
        running[receiver_id] += 1
        task = asyncio.create_task(self._deliver_one_by_one(receiver_id, priority), name=f"delivery to {receiver_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver_one_by_one(self, receiver_id: UUID, priority: Priority) -> None:
        is_first = True
        try:
            while not self._is_closing:
                now = self.clock()
                delivery = await lease_delivery(self.database, receiver_id, priority, now=now, until=now + LEASE)
                if delivery is None:
                    return
                # The next parallel task starts only when this task has a delivery. If all due deliveries must wait,
                # `lease_delivery` examines each of them to find that out, and a second task would do the same again.
                if is_first:
                    self._start_task(receiver_id, priority)
                    is_first = False
                await self._deliver_and_store(delivery, leased_at=now)
        except StorageUnavailable as exc:  # a leased delivery without an outcome is leased again after this lease
            outage_log.note(exc)
        except Exception:
            log.exception("delivery_failed", receiver=str(receiver_id))
        finally:
            running = self._running[priority]
            running[receiver_id] -= 1
            if running[receiver_id] == 0:
                del running[receiver_id]  # so that the counter does not grow with each receiver

    async def _deliver_and_store(self, delivery: LeasedEvent | LeasedLogout, *, leased_at: datetime) -> None:
        until = leased_at + LEASE
        if isinstance(delivery, LeasedLogout):
            await self._store(delivery, await self.logouts.deliver(delivery), until=until)
            return
        outcome = await self._deliver_event(delivery, now=leased_at)
        is_first_success = await self._store(delivery, outcome, until=until)
        # `delivery.delivered_at` is the time of the last success before this delivery was leased.
        was_unavailable = delivery.delivered_at is None or self.clock() - delivery.delivered_at >= OUTAGE
        # Several deliveries can succeed at the same time, but only the first of them makes the waiting retries due.
        if is_first_success and was_unavailable:
            await self._resume(delivery.receiver_id)

    async def _deliver_event(self, delivery: LeasedEvent, *, now: datetime) -> DeliveryOutcome:
        if delivery.is_swept:
            outcome = DeliveryOutcome(state=DeliveryState.FAILED, error="the event has been deleted")
        else:
            outcome = await self._attempt(delivery, now=now)
        DELIVERIES.count(delivery.name, "retried" if outcome.state is DeliveryState.PENDING else outcome.state)
        log_fields = {
            "webhook": delivery.name,
            "event_id": delivery.event_id,
            "attempt": delivery.attempts,
            "status": outcome.status,
        }
        if outcome.state is DeliveryState.DELIVERED:
            log.debug("delivered", **log_fields)
        else:
            log.warning("not_delivered", **log_fields, reason=outcome.error, next_at=outcome.next_at)
        return outcome

    async def _attempt(self, delivery: LeasedEvent, *, now: datetime) -> DeliveryOutcome:
        sent = await self.sign_and_send(delivery.receiver_id, delivery, delivery.for_siblings, now=now)
        if sent.is_accepted:
            return DeliveryOutcome(state=DeliveryState.DELIVERED, status=sent.status)
        if sent.status == HTTPStatus.GONE:
            await self._disable(delivery)  # pending deliveries wait until the webhook is enabled again
        if delivery.attempts > len(RETRY_SCHEDULE):
            return DeliveryOutcome(state=DeliveryState.FAILED, status=sent.status, error=sent.error)
        spread = random.uniform(-SPREAD, SPREAD)  # noqa: S311 - not used as a secret
        pause = RETRY_SCHEDULE[delivery.attempts - 1] * (1 + spread)
        retry_after = _pause_in(sent.retry_after, now=now)
        if retry_after is not None:
            pause = max(pause, min(retry_after, LONGEST_RETRY_AFTER))
        next_at = self.clock() + pause
        return DeliveryOutcome(state=DeliveryState.PENDING, status=sent.status, error=sent.error, next_at=next_at)

    async def _disable(self, delivery: LeasedEvent) -> None:
        disabled = await write_webhook(
            self.database, EventType.WEBHOOK_DISABLED, by=SYSTEM, now=self.clock(), id=delivery.receiver_id
        )
        if disabled is not None:
            log.warning("webhook_disabled", webhook=delivery.name, reason="it has answered 410")

    def _open_secrets(self, webhook_id: UUID, webhook: Webhook | LeasedEvent, *, now: datetime) -> list[bytes]:
        context = webhook_secret_context(webhook_id)
        secrets = [self.sealer.open(webhook.secret, context=context)]
        former, until = webhook.former_secret, webhook.former_secret_until
        if former is not None and until is not None and now < until:
            try:
                secrets.append(self.sealer.open(former, context=context))
            except CannotOpen as exc:  # a receiver with the current secret does not need this signature
                if webhook_id not in self._reported_webhooks:
                    self._reported_webhooks.add(webhook_id)
                    log.error("former_webhook_secret_not_unsealed", webhook=webhook.name, reason=str(exc))
        return secrets

    async def _store(self, delivery: LeasedEvent | LeasedLogout, outcome: DeliveryOutcome, *, until: datetime) -> bool:
        while True:
            try:
                return await settle_delivery(self.database, delivery, outcome, now=self.clock())
            except StorageUnavailable:  # a lost outcome causes a second delivery, so try until the lease ends
                if self.clock() > until:
                    raise
                await asyncio.sleep(_STORE_PAUSE_SECONDS)

    async def _resume(self, webhook_id: UUID) -> None:
        values = {"receiver_id": webhook_id, "now": self.clock(), "size": RESUMED_AT_ONCE}
        while True:
            async with self.database.begin(replan=True) as transaction:
                resumed = await transaction.run(RESUME_DELIVERIES, **values)
            self.wake()
            if resumed < RESUMED_AT_ONCE:
                return


def _pause_in(retry_after: str | None, *, now: datetime) -> timedelta | None:
    """Read a Retry-After header, in seconds or as a date (RFC 9110, section 10.2.3)."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    try:
        if text.isascii() and text.isdigit():
            return timedelta(seconds=min(int(text), int(LONGEST_RETRY_AFTER.total_seconds())))
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # also raised for numbers with too many digits
        return None
    if date.tzinfo is None:  # a date without a zone, or with -0000, is in UTC
        date = date.replace(tzinfo=UTC)
    return date - now
