"""The service's own keys: stored in PostgreSQL, sealed, and the same in every replica."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from pydantic_core import to_json

from wxauth.errors import KeysUnavailable, StorageUnavailable
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database, reason_of
from wxauth.server.core.ids import new_id
from wxauth.server.core.logs import get_logger
from wxauth.server.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer, signing_key_context
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.keys.models import StoredSigningKey
from wxauth.server.keys.rows import (
    ID_TOKEN_KEYS,
    SIGNING_KEY_TABLE,
    KeyTable,
    id_token_keys_are_needed,
    lock_keys,
    public_half,
    published_keys,
    store_keys,
)
from wxauth.server.keys.rsa_keys import RsaKey, verifier_of
from wxauth.server.keys.succession import Keys, has_next, is_due, rotated, signing_key_of, without_key
from wxauth.tokens.keys import SigningKey, VerificationKey

REFRESH_PAUSE_SECONDS: Final = 5.0
"""Seconds between two reads of the stored keys."""
RETRY_PAUSE_SECONDS: Final = 1.0
"""Seconds between two reads while there is no key."""

log = get_logger()


class PrivateKey(Protocol):
    """The type of the keys in a ring."""

    kid: str
    public_jwk: dict[str, str]

    def to_der(self) -> bytes:
        """The private key as PKCS#8."""


Key = TypeVar("Key", bound=PrivateKey)


class Ring(ABC, Generic[Key]):
    """Keys of one kind, as last read from the database.

    Args:
        max_age: The age at which the signing key is rotated.
        refresh_pause: Seconds between two reads of the stored keys.
    """

    table: ClassVar[KeyTable]

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        clock: Clock,
        *,
        max_age: timedelta,
        refresh_pause: float = REFRESH_PAUSE_SECONDS,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock
        self._max_age = max_age
        self._refresh_pause = refresh_pause
        self._stored: list[StoredSigningKey] = []
        self._keys: dict[str, Key] = {}
        self.unopened: list[str] = []
        """The kids of stored keys that cannot be unsealed with our secret keys. The others are in use."""

    @abstractmethod
    async def _generate(self) -> Key:
        """Make a key."""

    @abstractmethod
    def _unsealed(self, row: StoredSigningKey, sealer: Sealer) -> Key:
        """Raises: CannotOpen."""

    @property
    def public_jwks(self) -> list[dict[str, str]]:
        """The public keys (RFC 7517)."""
        return [key.public_jwk for key in self._keys.values()]

    @property
    def jwks(self) -> bytes:
        """The JWK set (RFC 7517, section 5)."""
        return to_json({"keys": self.public_jwks})

    def signing_key(self, now: datetime) -> Key:
        """The key that signs now: the newest active one. Raises: StorageUnavailable, if none has been read yet."""
        if not self._stored:
            raise StorageUnavailable("the signing keys have not been read yet")
        return self._keys[signing_key_of(self._stored, now).kid]

    @property
    def is_ready(self) -> bool:
        """Whether there is a key to sign with."""
        return bool(self._keys)

    async def refresh(self) -> None:
        """Read the stored keys. If there is none, or the signing key has reached its age, add a key.

        Raises: StorageUnavailable; CannotOpen, if they were encrypted with another `WXAUTH_SECRET_KEY`.
        """
        await self._read(self._is_due)

    async def rotate(self, *, by: Actor | None = None) -> StoredSigningKey:
        """Add a key that signs as soon as every cache has had time to fetch it, unless there is a next key already.

        Returns the newest key. With `by`, the rotation is recorded in the audit trail.

        Raises: StorageUnavailable, CannotOpen.
        """
        await self._read(lambda stored, now: not has_next(stored, now), by=by)
        return self._stored[-1]

    async def withdraw(self, kid: str, *, by: Actor) -> Sequence[StoredSigningKey]:
        """Withdraw a key at once, for example because it was stolen. Its tokens are no longer valid.

        Every process drops it within seconds. Sessions continue: a refresh gives a token of another key. Returns the
        keys that are still published.

        Raises: NoSuchKey, StorageUnavailable, CannotOpen.
        """
        now = self._clock()
        if stored := await published_keys(self._database, now=now, table=self.table):
            self._take(stored)  # first: a wrong secret key raises here, before it seals a new key
        key = await self._generate()
        async with self._database.begin() as transaction:
            before = await lock_keys(transaction, self.table, now=now)
            after = without_key(before, kid, lambda activates_at: self._sealed(key, activates_at), now=now)
            await store_keys(transaction, self.table, before, after)
            await record_event(transaction, EventType.SIGNING_KEY_WITHDRAWN, by=by, at=now, data={"kid": kid})
            stored = await lock_keys(transaction, self.table, now=now)
        self._take(stored)
        return stored

    async def keep_fresh(self) -> None:
        """Refresh forever, despite outages."""
        while True:
            await asyncio.sleep(self._refresh_pause if self.is_ready else RETRY_PAUSE_SECONDS)
            await self.try_refresh()

    async def try_refresh(self) -> None:
        """Refresh. If that fails, log why, and keep the keys as last read."""
        try:
            await self.refresh()
        except StorageUnavailable as exc:
            log.warning("signing_keys_not_read", reason=reason_of(exc))
        except CannotOpen:
            log.error("signing_keys_not_opened", what_to_change=WRONG_SECRET_KEY.en)
        except Exception:
            log.exception("signing_keys_not_read")

    async def _read(self, wants_another: Callable[[Keys, datetime], bool], *, by: Actor | None = None) -> None:
        """Read the stored keys, and add another one if `wants_another` returns True."""
        now = self._clock()
        stored = await published_keys(self._database, now=now, table=self.table)
        if stored:
            self._take(stored)  # first: a wrong secret key raises here, before it seals a new key
        if not wants_another(stored, now):
            return
        key = await self._generate()
        async with self._database.begin() as transaction:
            before = await lock_keys(transaction, self.table, now=now)
            is_ours = wants_another(before, now)  # otherwise another worker has added it
            if is_ours:
                after = rotated(before, lambda activates_at: self._sealed(key, activates_at), now=now)
                await store_keys(transaction, self.table, before, after)
            stored = await lock_keys(transaction, self.table, now=now)
            if is_ours and by is not None:  # automatic rotation is logged, not recorded in the trail
                data = {"kid": stored[-1].kid}
                await record_event(transaction, EventType.SIGNING_KEY_ROTATED, by=by, at=now, data=data)
        self._take(stored)
        if is_ours:
            event = "signing_key_rotated" if before else "signing_key_made"
            log.info(event, kid=self._stored[-1].kid, signs_from=self._stored[-1].activates_at)

    def _is_due(self, stored: Keys, now: datetime) -> bool:
        return is_due(stored, now, max_age=self._max_age)

    def _sealed(self, key: Key, activates_at: datetime) -> StoredSigningKey:
        now = self._clock()
        return StoredSigningKey(
            id=new_id(now),
            kid=key.kid,
            public_jwk=key.public_jwk,
            private_key=self._sealer.seal(key.to_der(), context=signing_key_context(key.kid)),
            created_at=now,
            activates_at=activates_at,
            retires_at=None,
        )

    def _take(self, stored: Sequence[StoredSigningKey]) -> None:
        keys: dict[str, Key] = {}
        unopened: list[str] = []
        for row in stored:
            try:
                keys[row.kid] = self._keys.get(row.kid) or self._unsealed(row, self._sealer)
            except CannotOpen:
                unopened.append(row.kid)
        if not keys:
            raise CannotOpen("no signing key can be decrypted")
        if unopened and unopened != self.unopened:
            log.error("signing_keys_not_opened", kids=unopened, what_to_change=WRONG_SECRET_KEY.en)
        self.unopened = unopened
        self._log_withdrawn(stored)
        self._stored, self._keys = [row for row in stored if row.kid in keys], keys

    def _log_withdrawn(self, stored: Keys) -> None:
        now, left = self._clock(), {key.kid for key in stored}
        for key in self._stored:
            if key.kid not in left and (key.retires_at is None or key.retires_at > now):
                log.warning("signing_key_withdrawn", kid=key.kid, consequence="its tokens are refused")


class KeyRing(Ring[SigningKey]):
    """The keys that sign and verify access tokens, and the `KeySource` of our own routes' verifier."""

    table = SIGNING_KEY_TABLE

    async def find(self, kid: str) -> VerificationKey | None:
        """The published key with this id, or None. Raises: KeysUnavailable, if none has been read yet."""
        if not self._keys:
            raise KeysUnavailable("the signing keys have not been read yet")
        key = self._keys.get(kid)
        return None if key is None else key.verification_key

    async def _generate(self) -> SigningKey:
        return SigningKey.generate()

    def _unsealed(self, row: StoredSigningKey, sealer: Sealer) -> SigningKey:
        return unsealed_key(row, sealer)


class IdTokenKeys(Ring[RsaKey]):
    """The keys that sign id_tokens, for websites. There are none before the first site."""

    table = ID_TOKEN_KEYS

    _read_at: datetime | None = None

    async def refresh(self) -> None:
        """As `Ring.refresh`, if there is a site."""
        self._read_at = self._clock()
        if self.is_ready or await id_token_keys_are_needed(self._database):
            await super().refresh()

    async def rotate(self) -> StoredSigningKey | None:  # type: ignore[override]  # there may be none
        """As `Ring.rotate`; None if there is no site."""
        return await super().rotate() if await id_token_keys_are_needed(self._database) else None

    async def read(self, now: datetime) -> RsaKey:
        """The key that signs now. If there is none, it refreshes: the first site may just have been added.

        Raises: StorageUnavailable, CannotOpen.
        """
        if not self.is_ready:
            await self.refresh()
        return self.signing_key(now)

    async def refresh_if_empty(self) -> None:
        """Refresh if there is no key yet, because another replica may have made the first one.

        At most once per `refresh_pause`: without a site there is never a key, and each request for the JWK set would
        query the database.
        """
        pause, now = timedelta(seconds=self._refresh_pause), self._clock()
        if not self.is_ready and (self._read_at is None or now - self._read_at >= pause):
            await self.try_refresh()

    async def keep_fresh(self) -> None:
        """Refresh forever, despite outages."""
        while True:
            await asyncio.sleep(self._refresh_pause)
            await self.try_refresh()

    async def verifier(self, kid: str) -> Any | None:
        """The verifier for a key's signatures; None if no such key is stored. The key may have retired.

        Raises: StorageUnavailable.
        """
        if (key := self._keys.get(kid)) is not None:
            return key.verifier
        stored = await public_half(self._database, kid)
        return None if stored is None else verifier_of(stored)

    async def _generate(self) -> RsaKey:
        return await asyncio.to_thread(RsaKey.generate)  # takes a tenth of a second or more

    def _unsealed(self, row: StoredSigningKey, sealer: Sealer) -> RsaKey:
        return RsaKey.from_der(sealer.open(row.private_key, context=signing_key_context(row.kid)))


def unsealed_key(row: StoredSigningKey, sealer: Sealer) -> SigningKey:
    """Unseal a stored key. Raises: CannotOpen."""
    return SigningKey.from_der(sealer.open(row.private_key, context=signing_key_context(row.kid)))
