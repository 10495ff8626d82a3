"""The commands `wxauth secret reseal` and `wxauth secret forget`, for use after a change of the secret key.

`reseal` re-encrypts all stored secrets with the current key, while the service runs. `forget` erases the values that
only a lost key could decrypt, so that the service can start again.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

from wxauth.apps.queries import DELETE_APP_WITH_SECRETS, STORED_APPS, reseal_app
from wxauth.checks.sealed import (
    SEALED_APPS,
    SEALED_PHONE_ANSWERS,
    SEALED_SESSION_KEYS,
    SEALED_SIGNING_KEYS,
    SEALED_WEBHOOKS,
    SealedKind,
)
from wxauth.core.clock import FIRST_ID, LAST_ID
from wxauth.core.database import Database
from wxauth.core.sealing import Sealer, webhook_secret_context
from wxauth.core.trail import OPERATOR, SYSTEM, EventType, record_event
from wxauth.core.upkeep import Reseal
from wxauth.events.webhook_queries import ALL_WEBHOOKS, change_webhook, reseal_webhook
from wxauth.keys.queries import PUBLISHED, lock_keys, reseal_key, store_keys
from wxauth.outbound.signatures import new_webhook_secret
from wxauth.phones.queries import ANSWERS_SEALED_OTHERWISE, DELETE_UNCHANGED, UnsettledAnswer, reseal_answer
from wxauth.session_keys.queries import SealedSessionKey, replace_session_keys, session_keys_sealed_otherwise

PAGE_SIZE: Final = 1000
RETRY_PAUSE_SECONDS: Final = 0.2  # another transaction has locked or changed rows of the page

Row = TypeVar("Row")


class _PageResult(NamedTuple):
    """The numbers of session keys, which differ if another transaction has locked or changed some of the rows."""

    to_write: int
    written: int


@dataclass(slots=True)
class SealedCounts:
    """The numbers of re-encrypted or erased values. A webhook's secret and previous secret count as one."""

    signing_keys: int = 0
    session_keys: int = 0
    phone_answers: int = 0
    webhook_secrets: int = 0  # an erased one must be renewed, and its webhook enabled
    apps: int = 0  # an app whose secrets are erased must be added again


@dataclass(slots=True)
class Resealed(SealedCounts):
    """Also counts the values that no secret key decrypts."""

    not_opened: int = 0


async def reseal(database: Database, sealer: Sealer, *, now: datetime, page_size: int = PAGE_SIZE) -> Resealed:
    """Re-encrypt all stored secrets that are not encrypted with the current secret key. Return the counts.

    A value is replaced only if it has not changed since it was read. No transaction covers more than a page. Therefore,
    the operator may stop the command and run it again at any time. The signing keys come last. Until they are replaced,
    no service starts without the previous secret key, so the operator cannot discard that key while another value still
    needs it.
    """
    resealing = _Resealing(database, sealer)
    done = resealing.done
    async for answer in _phone_answers(database, sealer, page_size):
        done.phone_answers += await resealing.reseal_row(SEALED_PHONE_ANSWERS, answer, reseal_answer)
    for webhook in await database.rows(ALL_WEBHOOKS):
        done.webhook_secrets += await resealing.reseal_row(SEALED_WEBHOOKS, webhook, reseal_webhook)
    done.session_keys = await _write_session_keys(database, sealer, resealing.reseal_session_keys, page_size)
    for app in await database.rows(STORED_APPS):
        done.apps += await resealing.reseal_row(SEALED_APPS, app, reseal_app)
    for key in await database.rows(PUBLISHED, now=now):
        done.signing_keys += await resealing.reseal_row(SEALED_SIGNING_KEYS, key, reseal_key)
    return done


@dataclass(frozen=True, slots=True)
class _Resealing:
    database: Database
    sealer: Sealer
    done: Resealed = field(default_factory=Resealed)

    async def reseal_row(self, kind: SealedKind[Row], row: Row, replace: Reseal) -> bool:
        if all(sealed is None or sealed.startswith(self.sealer.prefix) for sealed, _context in kind.values(row)):
            return False
        values = kind.resealed(self.sealer, row)
        if values is None:
            self.done.not_opened += 1
            return False
        return await replace(self.database, row, *values)

    async def reseal_session_keys(self, page: Sequence[SealedSessionKey]) -> _PageResult:
        opened: list[SealedSessionKey] = []
        resealed: list[bytes | None] = []
        for key in page:
            values = SEALED_SESSION_KEYS.resealed(self.sealer, key)
            if values is not None:
                (sealed,) = values  # a row contains one session key
                opened.append(key)
                resealed.append(sealed)
        replaced = await replace_session_keys(self.database, opened, resealed) if opened else 0
        if replaced == len(opened):  # otherwise the page is read again, and these keys would count twice
            self.done.not_opened += len(page) - len(opened)
        return _PageResult(len(opened), replaced)


async def forget(database: Database, sealer: Sealer, *, now: datetime, page_size: int = PAGE_SIZE) -> SealedCounts:
    """Erase every value that no configured secret key can decrypt, unless it has changed since it was read.

    No transaction covers more than a page, so the operator may stop the command and run it again. The signing keys are
    erased last. While one of them cannot be decrypted, no service starts. If the operator finds the lost key before the
    command ends, only the values that are already erased are lost.
    """

    async def clear(page: Sequence[SealedSessionKey]) -> _PageResult:
        lost = [key for key in page if not SEALED_SESSION_KEYS.opens(sealer, key)]
        cleared = await replace_session_keys(database, lost, [None] * len(lost)) if lost else 0
        return _PageResult(len(lost), cleared)

    done = SealedCounts()
    done.phone_answers = await _forget_phone_answers(database, sealer, page_size)
    done.session_keys = await _write_session_keys(database, sealer, clear, page_size)
    done.webhook_secrets = await _renew_lost_webhook_secrets(database, sealer, now)
    done.apps = await _forget_apps(database, sealer, now)
    done.signing_keys = await _forget_signing_keys(database, sealer, now)
    return done


async def _forget_phone_answers(database: Database, sealer: Sealer, page_size: int) -> int:
    deleted = 0
    async for answer in _phone_answers(database, sealer, page_size):
        if not SEALED_PHONE_ANSWERS.opens(sealer, answer):
            row = {"code_hash": answer.code_hash, "sealed": answer.sealed}
            if await database.value(DELETE_UNCHANGED, **row) is not None:
                deleted += 1
    return deleted


async def _renew_lost_webhook_secrets(database: Database, sealer: Sealer, now: datetime) -> int:
    """Give each webhook whose secret is lost a new one, and disable it, because nobody knows the new secret.

    The pending deliveries are sent after an administrator has renewed the secret and enabled the webhook. Events that
    occur before that are not queued for it.
    """
    renewed = 0
    for webhook in await database.rows(ALL_WEBHOOKS):
        if SEALED_WEBHOOKS.opens(sealer, webhook):
            continue
        secret = sealer.seal(new_webhook_secret(), context=webhook_secret_context(webhook.id))
        async with database.begin() as transaction:
            # None removes the previous secret, with which wxauth also signs for some time after a renewal.
            if await reseal_webhook(transaction, webhook, secret, None):
                await change_webhook(transaction, EventType.WEBHOOK_DISABLED, by=SYSTEM, now=now, id=webhook.id)
                renewed += 1
    return renewed


async def _forget_apps(database: Database, sealer: Sealer, now: datetime) -> int:
    removed = 0
    for app in await database.rows(STORED_APPS):
        if SEALED_APPS.opens(sealer, app):
            continue
        async with database.begin() as transaction:
            app_id = await transaction.value(DELETE_APP_WITH_SECRETS, app_id=app.app_id, secrets=app.secrets)
            if app_id is not None:
                await record_event(transaction, EventType.APP_REMOVED, by=OPERATOR, at=now, app_id=app_id)
                removed += 1
    return removed


async def _forget_signing_keys(database: Database, sealer: Sealer, now: datetime) -> int:
    async with database.begin() as transaction:
        stored = await lock_keys(transaction, now=now)
        opened = [key for key in stored if SEALED_SIGNING_KEYS.opens(sealer, key)]
        await store_keys(transaction, stored, opened)
    return len(stored) - len(opened)


async def _phone_answers(database: Database, sealer: Sealer, page_size: int) -> AsyncIterator[UnsettledAnswer]:
    after = b""
    while page := await database.rows(ANSWERS_SEALED_OTHERWISE, prefix=sealer.prefix, after=after, size=page_size):
        for answer in page:
            yield answer
        after = page[-1].code_hash


async def _write_session_keys(
    database: Database,
    sealer: Sealer,
    write: Callable[[Sequence[SealedSessionKey]], Awaitable[_PageResult]],
    page_size: int,
) -> int:
    total = 0
    after = FIRST_ID
    while True:
        page, until = await session_keys_sealed_otherwise(database, prefix=sealer.prefix, after=after, size=page_size)
        result = await write(page)
        total += result.written
        if result.written < result.to_write:
            # Some rows were locked or have changed, so the page is read again.
            await asyncio.sleep(RETRY_PAUSE_SECONDS)
        elif until == LAST_ID:
            return total
        else:
            after = until
