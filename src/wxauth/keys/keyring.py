"""The service's signing keys.

PostgreSQL stores the keys encrypted, and every replica reads them from PostgreSQL.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from jose import jwk
from pydantic_core import to_json

from wxauth.core.clock import Clock
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.outage_log import outage_log
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer
from wxauth.core.services import part
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.errors import NotFound, StorageUnavailable
from wxauth.keys.key_sets import NOT_READ, RSA_ALGORITHM, KeySet, RsaKey, sealed_row
from wxauth.keys.models import (
    NO_SUCH_KEY,
    Keys,
    MakeKey,
    StoredSigningKey,
    has_next,
    is_due,
    keys_for,
    rotated,
    signing_key_of,
    without_key,
)
from wxauth.keys.queries import HAS_SITES, PUBLIC_HALF, PUBLISHED, lock_keys, store_keys
from wxauth.settings.settings import Settings
from wxauth.tokens import PrivateKey, SigningKey
from wxauth_guard.claims import ALGORITHM
from wxauth_guard.errors import KeysUnavailable
from wxauth_guard.keys import VerificationKey

REFRESH_PAUSE_SECONDS: Final = 5.0
"""The pause, in seconds, between two reads of the stored keys."""
UNKNOWN_KEY_PAUSE: Final = timedelta(seconds=1)
"""The shortest time between two reads of the stored keys that are caused by unknown kids."""
RETRY_PAUSE_SECONDS: Final = 1.0
"""The pause, in seconds, between two reads while there is no key."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class _KeyChange:
    """A transaction that changes the stored keys of an algorithm."""

    transaction: Transaction
    before: Keys
    """The published keys of the algorithm, which are locked."""
    make: MakeKey
    """The function that returns the row of the new key. Call it at most once, because the key is always the same."""


@part
class KeyRing:
    """The keys that sign access tokens and, once a client may get them, id_tokens. wxauth rotates them automatically.

    ES256 keys sign the access tokens, and the id_tokens and logout tokens of clients whose `id_token_alg` is ES256.
    RS256 keys sign all other id_tokens and logout tokens.

    The key ring is also the `KeySource` with which wxauth's verifiers find the key of a token.
    """

    settings: Settings
    database: Database
    sealer: Sealer
    clock: Clock
    _site_checks: int = field(init=False, default=0)
    """The number of times that `refresh_for_first_site` has begun to query the database."""
    _site_check_lock: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _site_check_failed_at: datetime | None = field(init=False, default=None)
    """The time at which a query of `refresh_for_first_site` last failed; None if none has failed."""
    _unknown_key_read_at: datetime | None = field(init=False, default=None)
    """The time at which the latest read that was caused by an unknown kid began; None if there was no such read."""
    _unknown_key_read: asyncio.Task[None] | None = field(init=False, default=None)
    """The task of this read, which may have ended; None if there was no such read."""

    def __post_init__(self) -> None:
        self._access_token_keys = KeySet(SigningKey)
        self._id_token_keys = KeySet(RsaKey)
        self._key_sets: Sequence[KeySet[Any]] = (self._access_token_keys, self._id_token_keys)

    @property
    def unopened(self) -> list[str]:
        """The kids of the stored keys that wxauth's secret keys cannot decrypt. The other keys are in use."""
        return [kid for key_set in self._key_sets for kid in key_set.unopened]

    @property
    def jwks(self) -> bytes:
        """The published keys that wxauth can decrypt, as a JWK set (RFC 7517, section 5)."""
        return to_json({"keys": [key.public_jwk for key_set in self._key_sets for key in key_set.by_kid.values()]})

    @property
    def is_ready(self) -> bool:
        """Whether there is a key that signs access tokens."""
        return bool(self._access_token_keys.by_kid)

    def ensure_ready(self) -> None:
        """Check that there is a key that signs access tokens. Raises: StorageUnavailable, if there is none."""
        if not self.is_ready:
            raise StorageUnavailable(NOT_READ)

    def signing_key(self, now: datetime) -> SigningKey:
        """Return the key that signs access tokens now. Raises: StorageUnavailable, if no key has been read yet."""
        return self._access_token_keys.signing_key(now)

    async def id_token_key(self, alg: str | None, now: datetime) -> PrivateKey:
        """Return the key that signs id_tokens and logout tokens for a client with this algorithm.

        For any algorithm except RS256, the key that signs access tokens also signs these tokens. A site always has an
        algorithm, so None never means RS256 here.

        Raises: CannotOpen, if the stored keys cannot be decrypted; StorageUnavailable, if no key has been read yet, or
            if the database is unavailable.
        """
        if alg != RSA_ALGORITHM:
            return self.signing_key(now)
        if not self._id_token_keys.by_kid:  # the first site may just have been added
            await self.refresh()
        return self._id_token_keys.signing_key(now)

    async def find(self, kid: str) -> VerificationKey | None:
        """Return the published key of access tokens with this kid; None if there is no such key.

        Raises: KeysUnavailable, as every `KeySource` does, if no key has been read yet.
        """
        if not self.is_ready:
            raise KeysUnavailable(NOT_READ)
        if kid not in self._access_token_keys.by_kid:
            await self._refresh_for_unknown_key()
        key = self._access_token_keys.by_kid.get(kid)
        return None if key is None else key.verification_key

    async def _refresh_for_unknown_key(self) -> None:
        """Read the stored keys, because an unknown key may have just replaced a withdrawn key.

        Unknown kids cause at most one read per `UNKNOWN_KEY_PAUSE`, because anybody can make up kids. Requests that
        arrive during such a read wait for it.
        """
        now = self.clock()
        # With `abs`, a clock that was set back does not prevent reads.
        if self._unknown_key_read_at is None or abs(now - self._unknown_key_read_at) >= UNKNOWN_KEY_PAUSE:
            self._unknown_key_read_at = now
            self._unknown_key_read = asyncio.create_task(self.try_refresh(), name="unknown_key")
        if self._unknown_key_read is not None and not self._unknown_key_read.done():
            # The read continues if this request is cancelled, because other requests may wait for it.
            await asyncio.shield(self._unknown_key_read)

    async def id_token_verifier(self, alg: object, kid: str) -> Any | None:
        """Return the key object of python-jose that verifies an id_token's signature; None if there is no such key.

        A retired key is also returned until `DELETE_RETIRED` deletes it, because an expired id_token still names the
        session to end. `alg` is the value in the id_token's header, which may be any JSON value.

        Raises: StorageUnavailable, if the database is unavailable.
        """
        if alg not in (ALGORITHM, RSA_ALGORITHM):
            return None
        public_jwk = await self.database.value(PUBLIC_HALF, alg=alg, kid=kid)
        return None if public_jwk is None else jwk.construct(public_jwk, alg)

    async def refresh(self) -> None:
        """Read the stored keys, and add a key for each algorithm in use that needs one.

        An algorithm needs a key if it has none, or if its signing key has reached the maximum age and it has no next
        key.

        Raises: CannotOpen, if all keys of an algorithm were encrypted with another `WXAUTH_SECRET_KEY`;
            StorageUnavailable, if the database is unavailable.
        """
        max_age = timedelta(seconds=self.settings.signing_key_max_age)
        await self._read(lambda stored, now: is_due(stored, now, max_age=max_age))

    async def refresh_for_first_site(self) -> None:
        """Refresh if there is a site but no key for id_tokens, because the first site may just have been added.

        The next response with the JWK set must contain the new key, because caches store the response. In each
        process, at most one request at a time queries the database. A request uses the result of another request's
        query only if this query began after the request arrived, because an earlier query might not have seen the site.
        If the query for sites fails, log this, and send the next query only after `REFRESH_PAUSE_SECONDS`.
        """
        checks_before = self._site_checks
        async with self._site_check_lock:
            was_checked_meanwhile = self._site_checks > checks_before
            if self._id_token_keys.by_kid or was_checked_meanwhile or self._is_site_check_paused():
                return
            self._site_checks += 1
            try:
                if await self.database.value(HAS_SITES):
                    await self.try_refresh()
            except StorageUnavailable as exc:
                # The request can still return the existing keys.
                self._site_check_failed_at = self.clock()
                outage_log.note(exc)

    def _is_site_check_paused(self) -> bool:
        """Return whether a check for sites has failed less than `REFRESH_PAUSE_SECONDS` ago."""
        failed_at = self._site_check_failed_at
        # With `abs`, a clock that was set back does not prolong the pause.
        return failed_at is not None and abs(self.clock() - failed_at) < timedelta(seconds=REFRESH_PAUSE_SECONDS)

    async def rotate(self, *, by: Actor | None = None) -> StoredSigningKey:
        """Add a key for each algorithm in use that has no next key.

        A new key begins to sign when every cache has had time to fetch the key. The first key of an algorithm signs at
        once.

        Return the newest key of access tokens. If `by` is given, the audit trail records the addition of this key,
        but not the addition of a key of id_tokens.

        Raises: CannotOpen, if the stored keys cannot be decrypted; StorageUnavailable, if the database is unavailable.
        """
        await self._read(lambda stored, now: not has_next(stored, now), by=by)
        return self._access_token_keys.opened_rows[-1]

    async def withdraw(self, kid: str, *, by: Actor) -> StoredSigningKey:
        """Withdraw a key at once, for example because it was stolen. The tokens that it has signed become invalid.

        Every process of wxauth stops accepting the key within seconds, and the guards of other services do so within
        five minutes. Sessions continue, because a refresh returns a token that another key has signed. Return the key
        with the same algorithm that signs from now on.

        Raises: NotFound, if no published key has this kid; CannotOpen, if the stored keys cannot be decrypted;
            StorageUnavailable, if the database is unavailable.
        """
        now = self.clock()
        published = await self.database.rows(PUBLISHED, now=now)
        alg = next((row.alg for row in published if row.kid == kid), None)
        if alg is None:
            raise NotFound(NO_SUCH_KEY.detail)
        key_set = next(each for each in self._key_sets if each.alg == alg)
        # With a wrong secret key, this call raises an error before a new key is encrypted.
        key_set.replace(keys_for(alg, published), self.sealer, now)
        async with self._changing(key_set, now) as change:
            after = without_key(change.before, kid, change.make, now=now)
            await store_keys(change.transaction, change.before, after)
            await record_event(change.transaction, EventType.SIGNING_KEY_WITHDRAWN, by=by, at=now, data={"kid": kid})
        return signing_key_of(key_set.opened_rows, now)

    async def keep_fresh(self) -> None:
        """Read the stored keys periodically, forever, even through outages."""
        while True:
            await asyncio.sleep(REFRESH_PAUSE_SECONDS if self.is_ready else RETRY_PAUSE_SECONDS)
            await self.try_refresh()

    async def try_refresh(self) -> None:
        """Read the stored keys. If that fails, log the reason, and keep the keys that were read last."""
        try:
            await self.refresh()
        except StorageUnavailable as exc:
            outage_log.note(exc)
        except CannotOpen:
            log.error("signing_keys_not_opened", what_to_change=WRONG_SECRET_KEY)
        except Exception:  # for example a bug. A process that stopped reading would still accept withdrawn keys.
            log.exception("signing_keys_not_read")

    async def _read(self, wants_another: Callable[[Keys, datetime], bool], *, by: Actor | None = None) -> None:
        """Read the stored keys, and add a key for each algorithm for which `wants_another` returns True.

        If `by` is given, the audit trail records the addition of a key of access tokens. Skip the keys of id_tokens if
        none is stored, and none is needed.
        """
        now = self.clock()
        published = await self.database.rows(PUBLISHED, now=now)
        for key_set in self._key_sets:
            stored = keys_for(key_set.alg, published)
            if stored:
                # With a wrong secret key, this call raises an error before a new key is encrypted.
                key_set.replace(stored, self.sealer, now)
            elif key_set is self._id_token_keys and not await self._may_issue_id_tokens():
                continue
            if wants_another(stored, now):
                recorded_actor = by if key_set is self._access_token_keys else None
                await self._add(key_set, wants_another, by=recorded_actor, now=now)

    async def _may_issue_id_tokens(self) -> bool:
        """Return whether there is a site, or whether a client can become a site without registration."""
        return bool(self.settings.client_documents) or bool(await self.database.value(HAS_SITES))

    async def _add(
        self, key_set: KeySet[Any], wants_another: Callable[[Keys, datetime], bool], *, by: Actor | None, now: datetime
    ) -> None:
        """Add a key to a key set, unless another process has already added it. Log the addition.

        `wants_another` is called after the keys are locked, and returns whether a key is still missing. If `by` is
        given, the audit trail records the addition, too.
        """
        async with self._changing(key_set, now) as change:
            is_added = wants_another(change.before, now)
            if is_added:
                after = rotated(change.before, change.make, now=now)
                await store_keys(change.transaction, change.before, after)
                if by is not None:
                    data = {"kid": after[-1].kid}
                    await record_event(change.transaction, EventType.SIGNING_KEY_ROTATED, by=by, at=now, data=data)
        if is_added:
            event = "signing_key_rotated" if change.before else "signing_key_made"
            signs = "access tokens" if key_set is self._access_token_keys else "id_tokens"
            log.info(event, kid=after[-1].kid, alg=key_set.alg, signs=signs, signs_from=after[-1].activates_at)

    @asynccontextmanager
    async def _changing(self, key_set: KeySet[Any], now: datetime) -> AsyncIterator[_KeyChange]:
        """Open a block that changes the stored keys of an algorithm. After the block, read the stored keys again."""
        key = await asyncio.to_thread(key_set.key_type.generate)  # generating an RS256 key takes a tenth of a second
        async with self.database.begin() as transaction:
            before = keys_for(key_set.alg, await lock_keys(transaction, now=now))
            yield _KeyChange(transaction, before, make=partial(sealed_row, key, self.sealer, now))
            stored = keys_for(key_set.alg, await transaction.rows(PUBLISHED, now=now))
        key_set.replace(stored, self.sealer, now)
