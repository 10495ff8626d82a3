"""`wxauth secret forget`: what only a lost secret key opens is given up, so that the service starts again."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wxauth.core.database import Database
from wxauth.core.sealing import CannotOpen, Sealer, phone_answer_context, session_key_context, signing_key_context
from wxauth.keys.rows import KEY_TABLES, lock_keys, store_keys
from wxauth.login.session_key_rows import erase_session_keys, session_keys_sealed_otherwise
from wxauth.people.session_rows import END, START
from wxauth.profile.phone_rows import answers_sealed_otherwise, erase_answer

PAGE_SIZE: Final = 1000
RETRY_PAUSE: Final = 0.2
"""Seconds to wait for a session that somebody else is changing."""


@dataclass(slots=True)
class Forgotten:
    """How many were given up."""

    signing_keys: int = 0
    session_keys: int = 0
    phone_answers: int = 0


async def forget(database: Database, sealer: Sealer, *, now: datetime, page_size: int = PAGE_SIZE) -> Forgotten:
    """Erase what no secret key at hand opens. What opens is left as it is.

    Each page is committed by itself: it may be stopped, and begun again, at any time. The signing keys come last: until
    they are gone no service starts, and whoever finds the lost key after all has lost only what was given up by then.

    Raises: StorageUnavailable.
    """
    done = Forgotten()
    await _forget_phone_answers(database, sealer, done, page_size=page_size)
    await _forget_session_keys(database, sealer, done, page_size=page_size)
    await _forget_signing_keys(database, sealer, done, now=now)
    return done


async def _forget_phone_answers(database: Database, sealer: Sealer, done: Forgotten, *, page_size: int) -> None:
    after = b""
    while sealed := await answers_sealed_otherwise(database, prefix=sealer.prefix, after=after, size=page_size):
        for answer in sealed:
            if not _opens(sealer, answer.sealed, phone_answer_context(answer.code_hash)):
                done.phone_answers += await erase_answer(database, answer)
        after = sealed[-1].code_hash


async def _forget_session_keys(database: Database, sealer: Sealer, done: Forgotten, *, page_size: int) -> None:
    after = START
    while True:
        sealed, until = await session_keys_sealed_otherwise(database, prefix=sealer.prefix, after=after, size=page_size)
        lost = [key for key in sealed if not _opens(sealer, key.sealed, session_key_context(key.app_id, key.openid))]
        erased = await erase_session_keys(database, lost) if lost else 0
        done.session_keys += erased
        if erased < len(lost):
            await asyncio.sleep(RETRY_PAUSE)  # some were locked, or have changed: the page is read again
            continue
        if until == END:
            return
        after = until


async def _forget_signing_keys(database: Database, sealer: Sealer, done: Forgotten, *, now: datetime) -> None:
    for table in reversed(KEY_TABLES):
        async with database.begin() as transaction:
            stored = await lock_keys(transaction, table, now=now)
            kept = [key for key in stored if _opens(sealer, key.private_key, signing_key_context(key.kid))]
            await store_keys(transaction, table, stored, kept)
        done.signing_keys += len(stored) - len(kept)


def _opens(sealer: Sealer, sealed: bytes, context: bytes) -> bool:
    try:
        sealer.open(sealed, context=context)
    except CannotOpen:
        return False
    return True
