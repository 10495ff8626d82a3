"""The service's signing keys.

PostgreSQL stores the keys encrypted, and every replica reads them from PostgreSQL. A process keeps those of each
algorithm in a `KeySet`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Generic, Self, TypeVar
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import rsa
from jose import jwk
from pydantic_core import to_json

from wxauth.core.clock import Clock, new_id
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.outages import outage_log
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer, signing_key_context
from wxauth.core.services import part
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.errors import NotFound, StorageUnavailable
from wxauth.keys.models import (
    RSA_ALGORITHM,
    SHORTEST_LEAD,
    UNKNOWN_KEY,
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
from wxauth.keys.queries import HAS_SITES, LONGEST_ID_TOKEN, NOTE_ISSUER, PUBLIC_HALF, PUBLISHED, lock_keys, store_keys
from wxauth.settings.settings import Settings
from wxauth.tokens import PrivateKey, SigningKey
from wxauth_guard.claims import ALGORITHM
from wxauth_guard.errors import KeysUnavailable
from wxauth_guard.keys import VerificationKey
from wxauth_guard.urls import is_loopback

REFRESH_PAUSE_SECONDS: Final = 5.0
UNKNOWN_KEY_PAUSE: Final = timedelta(seconds=1)  # anybody can make up kids
RETRY_PAUSE_SECONDS: Final = 1.0  # while there is no key
_RSA_BITS: Final = 2048
_RSA_EXPONENT: Final = 65537  # nearly all RSA keys share it
NOT_READ: Final = "the signing keys have not been read yet"

log = get_logger()
Key = TypeVar("Key", bound=PrivateKey)
_Question = Callable[[Keys, datetime], bool]  # about the keys that are stored, before and after they are locked


class RsaKey(PrivateKey):
    __slots__ = ()
    alg = RSA_ALGORITHM
    kind = rsa.RSAPrivateKey

    @classmethod
    def generate(cls) -> Self:
        return cls(rsa.generate_private_key(_RSA_EXPONENT, _RSA_BITS))


class KeySet(Generic[Key]):
    """The published keys of one algorithm, as this process last read them from the database."""

    def __init__(self, key_type: type[Key]) -> None:
        self.alg = key_type.alg
        self.key_type = key_type
        self.opened_rows: Keys = []  # wxauth's secret keys can decrypt these
        self.by_kid: dict[str, Key] = {}
        self.unopened: list[str] = []  # kids of the keys that wxauth's secret keys cannot decrypt

    def signing_key(self, now: datetime) -> Key:
        if not self.opened_rows:
            raise StorageUnavailable(NOT_READ)
        return self.by_kid[signing_key_of(self.opened_rows, now).kid]

    def replace(self, stored: Keys, sealer: Sealer, now: datetime) -> None:
        """Replace the keys that were read before. Raises: CannotOpen, if none of the stored keys can be decrypted."""
        by_kid: dict[str, Key] = {}
        for row in stored:
            try:
                # A known key stays the same object. For another object, a verifier checks each signature again.
                by_kid[row.kid] = self.by_kid.get(row.kid) or unsealed_key(row, sealer, self.key_type)
            except CannotOpen:
                continue
        if not by_kid:
            raise CannotOpen("no signing key can be decrypted")
        unopened = [row.kid for row in stored if row.kid not in by_kid]
        if unopened and unopened != self.unopened:
            log.error("signing_keys_not_opened", kids=unopened, what_to_change=WRONG_SECRET_KEY)
        self._log_withdrawn(stored, now)
        self.opened_rows = [row for row in stored if row.kid in by_kid]
        self.by_kid = by_kid
        self.unopened = unopened

    def _log_withdrawn(self, stored: Keys, now: datetime) -> None:
        remaining = {row.kid for row in stored}
        for row in self.opened_rows:
            has_retired = row.retires_at is not None and row.retires_at <= now
            if row.kid not in remaining and not has_retired:
                log.warning("signing_key_withdrawn", kid=row.kid, consequence="its tokens are refused")


def sealed_row(
    key: PrivateKey, sealer: Sealer, now: datetime, activates_at: datetime, *, id_token_ttl: int = 0
) -> StoredSigningKey:
    return StoredSigningKey(
        id=new_id(now),
        alg=key.alg,
        kid=key.kid,
        public_jwk=key.public_jwk,
        private_key=sealer.seal(key.to_der(), context=signing_key_context(key.kid)),
        created_at=activates_at,
        activates_at=activates_at,
        id_token_ttl=id_token_ttl,
        retires_at=None,
    )


def unsealed_key(row: StoredSigningKey, sealer: Sealer, key_type: type[Key]) -> Key:
    return key_type.from_der(sealer.open(row.private_key, context=signing_key_context(row.kid)))


@dataclass(frozen=True, slots=True)
class _KeyChange:
    transaction: Transaction
    before: Keys  # published and locked
    make: MakeKey  # to be called at most once, because the key is always the same


@part
class KeyRing:
    """The keys that sign access tokens and, once a client may get them, id_tokens. wxauth rotates them automatically.

    The key ring is also the `KeySource` with which wxauth's verifiers find the key of a token.
    """

    settings: Settings
    database: Database
    sealer: Sealer
    clock: Clock
    _site_checks: int = field(init=False, default=0)  # how many queries for sites have begun
    _site_check_lock: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _site_check_failed_at: datetime | None = field(init=False, default=None)
    _unknown_key_read_at: datetime | None = field(init=False, default=None)
    _unknown_key_read: asyncio.Task[None] | None = field(init=False, default=None)

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
        """The keys that wxauth can decrypt, as a JWK set (RFC 7517, section 5)."""
        return to_json({"keys": [key.public_jwk for key_set in self._key_sets for key in key_set.by_kid.values()]})

    @property
    def is_ready(self) -> bool:
        """Whether there is a key that signs access tokens."""
        return bool(self._access_token_keys.by_kid)

    def ensure_ready(self) -> None:
        """Check that there is a key that signs access tokens.

        Callers do this before they use up a code or a refresh token, which would be lost if no token could be signed.
        """
        if not self._access_token_keys.by_kid:
            raise StorageUnavailable(NOT_READ)

    def signing_key(self, now: datetime) -> SigningKey:
        """Return the key that signs access tokens now."""
        return self._access_token_keys.signing_key(now)

    async def id_token_key(self, alg: str | None, now: datetime) -> PrivateKey:
        """Return the key that signs id_tokens and logout tokens for a client with this algorithm.

        `alg` is never None, because each site has an algorithm. Only the types of the rows allow None.
        """
        if alg != RSA_ALGORITHM:
            return self.signing_key(now)
        if not self._id_token_keys.by_kid:  # the first site may just have been added
            await self.refresh()
        return self._id_token_keys.signing_key(now)

    async def find(self, kid: str) -> VerificationKey | None:
        """Return the published key of access tokens with this kid."""
        if not self.is_ready:
            raise KeysUnavailable(NOT_READ)
        if kid not in self._access_token_keys.by_kid:  # it may have just replaced a withdrawn key
            await self._refresh_for_unknown_key()
        key = self._access_token_keys.by_kid.get(kid)
        return None if key is None else key.verification_key

    async def _refresh_for_unknown_key(self) -> None:
        now = self.clock()
        # With `abs`, a clock that was set back does not prevent reads.
        if self._unknown_key_read_at is None or abs(now - self._unknown_key_read_at) >= UNKNOWN_KEY_PAUSE:
            self._unknown_key_read_at = now
            self._unknown_key_read = asyncio.create_task(self.try_refresh(), name="unknown_key")
        if self._unknown_key_read is not None and not self._unknown_key_read.done():
            # The read continues if this request is cancelled, because other requests may wait for it.
            await asyncio.shield(self._unknown_key_read)

    async def id_token_verifier(self, alg: object, kid: str) -> Any | None:
        """Return the key object of python-jose that verifies an id_token's signature.

        A retired key is also returned, because an expired id_token still names the session to end. `alg` is the value
        in the id_token's header, which may be any JSON value.
        """
        if alg not in (ALGORITHM, RSA_ALGORITHM):
            return None
        public_jwk = await self.database.value(PUBLIC_HALF, alg=alg, kid=kid)
        return None if public_jwk is None else jwk.construct(public_jwk, alg)

    @property
    def _lead(self) -> timedelta:
        return timedelta(seconds=self.settings.signing_key_lead)

    async def refresh(self) -> None:
        """Read the stored keys, and add a key for each algorithm in use that needs one.

        Raises: CannotOpen, if all keys of an algorithm were encrypted with another `WXAUTH_SECRET_KEY`.
        """
        max_age = timedelta(seconds=self.settings.signing_key_max_age)
        lead = self._lead
        await self._read_and_add(lambda stored, now: is_due(stored, now, max_age=max_age, lead=lead), lead=lead)

    async def note_issuer(self) -> None:
        """Store that the service issues tokens under its URL, for `wxauth check`. URLs of this machine do not count."""
        if not is_loopback(urlsplit(self.settings.issuer).hostname):
            await self.database.run(NOTE_ISSUER, issuer=self.settings.issuer, now=self.clock())

    async def refresh_for_first_site(self) -> None:
        """Refresh if there is a site but no key for id_tokens, because the first site may just have been added.

        The next response with the JWK set must contain the new key, because caches store the response. A request uses
        the result of another request's query only if this query began after the request arrived, because an earlier
        query might not have seen the site.
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
        failed_at = self._site_check_failed_at
        # With `abs`, a clock that was set back does not prolong the pause.
        return failed_at is not None and abs(self.clock() - failed_at) < timedelta(seconds=REFRESH_PAUSE_SECONDS)

    async def rotate(self, *, at_once: bool = False, by: Actor | None = None) -> StoredSigningKey:
        """Add a key for each algorithm in use that has no next key. Return the newest key of access tokens.

        A new key begins to sign when every cache has had time to fetch the key. With `at_once`, only caches that obey
        the response's `max-age` have this time, and a key that already waits is brought forward. The audit trail
        records only changes of the keys of access tokens, and only if `by` is given.
        """
        if at_once:
            lead = SHORTEST_LEAD
            await self._read_and_add(lambda stored, now: not has_next(stored, now, within=lead), lead=lead, by=by)
        else:
            await self._read_and_add(lambda stored, now: not has_next(stored, now), lead=self._lead, by=by)
        return self._access_token_keys.opened_rows[-1]

    async def withdraw(self, kid: str, *, by: Actor) -> StoredSigningKey:
        """Withdraw a key, whose tokens become invalid, and return the key of its algorithm that signs from now on."""
        now = self.clock()
        published = await self.database.rows(PUBLISHED, now=now)
        alg = next((row.alg for row in published if row.kid == kid), None)
        if alg is None:
            raise NotFound(UNKNOWN_KEY)
        key_set = next(each for each in self._key_sets if each.alg == alg)
        # With a wrong secret key, this call raises an error before a new key is encrypted.
        key_set.replace(keys_for(alg, published), self.sealer, now)
        async with self._changing(key_set, now) as change:
            after = without_key(change.before, kid, change.make, now=now, lead=self._lead)
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

    async def _read_and_add(self, wants_another: _Question, *, lead: timedelta, by: Actor | None = None) -> None:
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
                await self._add(key_set, wants_another, lead=lead, by=recorded_actor, now=now)

    async def _may_issue_id_tokens(self) -> bool:
        # With client documents, a client can become a site without registration.
        return bool(self.settings.client_documents) or bool(await self.database.value(HAS_SITES))

    async def _add(
        self, key_set: KeySet[Any], wants_another: _Question, *, lead: timedelta, by: Actor | None, now: datetime
    ) -> None:
        async with self._changing(key_set, now) as change:
            is_added = wants_another(change.before, now)  # another process may have added the key before the lock
            if is_added:
                after = rotated(change.before, change.make, now=now, lead=lead)
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
        """Lock the stored keys. The caller stores the changed keys, which `key_set` uses after the commit."""
        key = await asyncio.to_thread(key_set.key_type.generate)  # generating an RS256 key takes a tenth of a second
        async with self.database.begin() as transaction:
            before = keys_for(key_set.alg, await lock_keys(transaction, now=now))
            longest = await transaction.value(LONGEST_ID_TOKEN, alg=key_set.alg) or 0
            yield _KeyChange(transaction, before, make=partial(sealed_row, key, self.sealer, now, id_token_ttl=longest))
            stored = keys_for(key_set.alg, await transaction.rows(PUBLISHED, now=now))
        key_set.replace(stored, self.sealer, now)
