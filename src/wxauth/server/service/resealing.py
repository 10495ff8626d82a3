"""After a change of the secret key: `wxauth secret reseal` and `wxauth secret forget`.

The one seals everything stored with the current key, while the service runs. The other erases what only a lost key
could open, so that the service can start again.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wxauth.server.apps.rows import delete_app, replace_app_secrets, stored_apps
from wxauth.server.checks.sealed import (
    SEALED_APPS,
    SEALED_PHONE_ANSWERS,
    SEALED_SESSION_KEYS,
    SEALED_SIGNING_KEYS,
    SEALED_URL_LINKS,
    SEALED_WEBHOOKS,
    SealedCounts,
)
from wxauth.server.core.database import Database
from wxauth.server.core.sealing import Sealer, webhook_secret_context
from wxauth.server.core.trail import OPERATOR, SYSTEM, EventType, record_event
from wxauth.server.events.sending import new_webhook_secret
from wxauth.server.events.webhook_rows import replace_secrets, sealed_otherwise, write_webhook
from wxauth.server.keys.rows import lock_keys, published_keys, replace_private_key, store_keys
from wxauth.server.phones.rows import answers_sealed_otherwise, delete_answer, replace_answer
from wxauth.server.session_keys.rows import replace_session_keys, session_keys_sealed_otherwise
from wxauth.server.sessions.rows import END, START
from wxauth.server.websites.rows import delete_url_link, replace_url_link, url_links

PAGE_SIZE: Final = 1000
RETRY_PAUSE_SECONDS: Final = 0.2
"""Seconds to wait for a session that another transaction is changing."""


@dataclass(slots=True)
class Resealed(SealedCounts):
    """How many values were resealed, and how many no secret key opens."""

    not_opened: int = 0


async def reseal(database: Database, sealer: Sealer, *, now: datetime, page_size: int = PAGE_SIZE) -> Resealed:
    """Reseal everything that is not sealed with the current secret key.

    A value is replaced only if it has not changed since it was read, and each page is a transaction of its own, so the
    command may be stopped and run again at any time. The signing keys come last: until they are resealed, no service
    starts without the former secret key, so nobody discards that key while another value still needs it.
    """
    done = Resealed()
    await _reseal_phone_answers(database, sealer, done, page_size=page_size)
    await _reseal_webhooks(database, sealer, done)
    await _reseal_session_keys(database, sealer, done, page_size=page_size)
    await _reseal_apps(database, sealer, done)
    await _reseal_url_links(database, sealer, done)
    await _reseal_signing_keys(database, sealer, done, now=now)
    return done


async def _reseal_session_keys(database: Database, sealer: Sealer, done: Resealed, *, page_size: int) -> None:
    after = START
    while True:
        stale, until = await session_keys_sealed_otherwise(database, prefix=sealer.prefix, after=after, size=page_size)
        anew = {key: sealed for key in stale if (sealed := SEALED_SESSION_KEYS.sealed_anew(sealer, key)) is not None}
        secrets = [sealed for (sealed,) in anew.values() if sealed is not None]
        replaced = await replace_session_keys(database, list(anew), secrets) if anew else 0
        done.session_keys += replaced
        if replaced < len(anew):
            await asyncio.sleep(RETRY_PAUSE_SECONDS)  # some rows were locked or have changed: read the page again
            continue
        done.not_opened += len(stale) - len(anew)
        if until == END:
            return
        after = until


async def _reseal_signing_keys(database: Database, sealer: Sealer, done: Resealed, *, now: datetime) -> None:
    for key in await published_keys(database, now=now):
        if key.private_key.startswith(sealer.prefix):
            continue
        match SEALED_SIGNING_KEYS.sealed_anew(sealer, key):
            case [bytes() as anew]:
                done.signing_keys += await replace_private_key(database, key, anew)
            case _:
                done.not_opened += 1


async def _reseal_apps(database: Database, sealer: Sealer, done: Resealed) -> None:
    for app in await stored_apps(database):
        if app.secrets.startswith(sealer.prefix):
            continue
        match SEALED_APPS.sealed_anew(sealer, app):
            case [bytes() as anew]:
                done.apps += await replace_app_secrets(database, app, anew)
            case _:
                done.not_opened += 1


async def _reseal_url_links(database: Database, sealer: Sealer, done: Resealed) -> None:
    for link in await url_links(database):
        if link.sealed.startswith(sealer.prefix):
            continue
        match SEALED_URL_LINKS.sealed_anew(sealer, link):
            case [bytes() as anew]:
                done.url_links += await replace_url_link(database, link, anew)
            case _:
                done.not_opened += 1


async def _reseal_phone_answers(database: Database, sealer: Sealer, done: Resealed, *, page_size: int) -> None:
    after = b""
    while stale := await answers_sealed_otherwise(database, prefix=sealer.prefix, after=after, size=page_size):
        for answer in stale:
            match SEALED_PHONE_ANSWERS.sealed_anew(sealer, answer):
                case [bytes() as anew]:
                    done.phone_answers += await replace_answer(database, answer, anew)
                case _:
                    done.not_opened += 1
        after = stale[-1].code_hash


async def _reseal_webhooks(database: Database, sealer: Sealer, done: Resealed) -> None:
    for webhook in await sealed_otherwise(database, prefix=sealer.prefix):
        match SEALED_WEBHOOKS.sealed_anew(sealer, webhook):
            case [bytes() as secret, former]:
                done.webhook_secrets += await replace_secrets(database, webhook, secret, former)
            case _:
                done.not_opened += 1


"""Seconds to wait for a session that another transaction is changing."""


async def forget(database: Database, sealer: Sealer, *, now: datetime, page_size: int = PAGE_SIZE) -> SealedCounts:
    """Erase every value that no configured secret key opens.

    Each page is a transaction of its own, so the command may be stopped and run again at any time. The signing keys
    come last, because no service starts until they are gone. If the lost key is found in between, only what was erased
    by then is lost.
    """
    done = SealedCounts()
    await _forget_phone_answers(database, sealer, done, page_size=page_size)
    await _forget_session_keys(database, sealer, done, page_size=page_size)
    await _forget_webhook_secrets(database, sealer, done, now=now)
    await _forget_apps(database, sealer, done, now=now)
    await _forget_url_links(database, sealer, done)
    await _forget_signing_keys(database, sealer, done, now=now)
    return done


async def _forget_url_links(database: Database, sealer: Sealer, done: SealedCounts) -> None:
    for link in await url_links(database):
        if not SEALED_URL_LINKS.opens(sealer, link):
            done.url_links += await delete_url_link(database, link)


async def _forget_phone_answers(database: Database, sealer: Sealer, done: SealedCounts, *, page_size: int) -> None:
    after = b""
    while sealed := await answers_sealed_otherwise(database, prefix=sealer.prefix, after=after, size=page_size):
        for answer in sealed:
            if not SEALED_PHONE_ANSWERS.opens(sealer, answer):
                done.phone_answers += await delete_answer(database, answer)
        after = sealed[-1].code_hash


async def _forget_session_keys(database: Database, sealer: Sealer, done: SealedCounts, *, page_size: int) -> None:
    after = START
    while True:
        sealed, until = await session_keys_sealed_otherwise(database, prefix=sealer.prefix, after=after, size=page_size)
        lost = [key for key in sealed if not SEALED_SESSION_KEYS.opens(sealer, key)]
        cleared = await replace_session_keys(database, lost, [None] * len(lost)) if lost else 0
        done.session_keys += cleared
        if cleared < len(lost):
            await asyncio.sleep(RETRY_PAUSE_SECONDS)  # some rows were locked or have changed: read the page again
            continue
        if until == END:
            return
        after = until


async def _forget_webhook_secrets(database: Database, sealer: Sealer, done: SealedCounts, *, now: datetime) -> None:
    for webhook in await sealed_otherwise(database, prefix=sealer.prefix):
        if SEALED_WEBHOOKS.opens(sealer, webhook):
            continue
        # Nobody knows the new secret. The disabled webhook keeps its events until its secret is renewed.
        await write_webhook(database, EventType.WEBHOOK_DISABLED, by=SYSTEM, now=now, id=webhook.id)
        secret = sealer.seal(new_webhook_secret(), context=webhook_secret_context(webhook.id))
        done.webhook_secrets += await replace_secrets(database, webhook, secret, None)


async def _forget_apps(database: Database, sealer: Sealer, done: SealedCounts, *, now: datetime) -> None:
    for app in await stored_apps(database):
        if SEALED_APPS.opens(sealer, app):
            continue
        async with database.begin() as transaction:
            if await delete_app(transaction, app.app_id):
                await record_event(transaction, EventType.APP_REMOVED, by=OPERATOR, at=now, app_id=app.app_id)
                done.apps += 1


async def _forget_signing_keys(database: Database, sealer: Sealer, done: SealedCounts, *, now: datetime) -> None:
    async with database.begin() as transaction:
        stored = await lock_keys(transaction, now=now)
        kept = [key for key in stored if SEALED_SIGNING_KEYS.opens(sealer, key)]
        await store_keys(transaction, stored, kept)
    done.signing_keys += len(stored) - len(kept)
