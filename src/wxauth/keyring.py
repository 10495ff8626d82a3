"""The service's own keys: kept in Postgres, sealed, the same in every replica."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Final

from pydantic_core import to_json
from uuid_utils.compat import uuid7

from wxauth.clock import Clock
from wxauth.errors import KeysUnavailable, StorageUnavailable
from wxauth.logs import get_logger
from wxauth.sealing import CannotOpen, Sealer
from wxauth.store.database import Database
from wxauth.store.models import StoredSigningKey
from wxauth.store.signing_keys import make_first_key, published_keys
from wxauth.tokens.keys import SigningKey, VerificationKey

REFRESH_PAUSE: Final = 5.0
"""Seconds between two looks at the stored keys."""
RETRY_PAUSE: Final = 1.0
"""Seconds between two looks while there is no key."""

log = get_logger()


class KeyRing:
    """The keys that sign and check access tokens, as last read from the database.

    A `KeySource` for the verifier of our own routes: no network, no database.
    """

    def __init__(self, database: Database, sealer: Sealer, clock: Clock) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock
        self._stored: list[StoredSigningKey] = []
        self._keys: dict[str, SigningKey] = {}
        self.jwks = b'{"keys":[]}'
        """The JWK set (RFC 7517, section 5), and its strong validator."""
        self.etag = ""

    def signing_key(self, now: datetime) -> SigningKey:
        """The key that signs now: the newest active one. Raises: StorageUnavailable, before the first is read."""
        if not self._stored:
            raise StorageUnavailable("the signing keys have not been read yet")
        for stored in reversed(self._stored):
            if stored.activates_at <= now:
                break
        return self._keys[stored.kid]  # where none is active, the oldest: its maker's clock was ahead of ours

    async def find(self, kid: str) -> VerificationKey | None:
        """The published key of that id, or None. Raises: KeysUnavailable, before the first is read."""
        if not self._keys:
            raise KeysUnavailable("the signing keys have not been read yet")
        key = self._keys.get(kid)
        return None if key is None else key.verification_key

    @property
    def is_ready(self) -> bool:
        """Whether there is a key to sign with."""
        return bool(self._keys)

    async def refresh(self) -> None:
        """Read the stored keys; make the first one where there is none.

        Raises: StorageUnavailable, and CannotOpen where `WXAUTH_SECRET_KEY` is not the one that sealed them.
        """
        now = self._clock()
        stored = await published_keys(self._database, now=now)
        if not stored:
            stored = await make_first_key(self._database, lambda: self._new_key(now), now=now)
        self._take(stored)

    async def keep_fresh(self) -> None:
        """Refresh for ever, through outages."""
        while True:
            await asyncio.sleep(REFRESH_PAUSE if self.is_ready else RETRY_PAUSE)
            await self.try_refresh()

    async def try_refresh(self) -> None:
        """Refresh, or keep what was read before and log why."""
        try:
            await self.refresh()
        except StorageUnavailable:
            log.warning("signing_keys_not_read", reason="the database does not answer")
        except CannotOpen:
            log.error("signing_keys_not_opened", what_to_change="WXAUTH_SECRET_KEY is not the one that sealed them")
        except Exception:
            log.exception("signing_keys_not_read")

    def _new_key(self, now: datetime) -> StoredSigningKey:
        key = SigningKey.generate()
        log.info("signing_key_made", kid=key.kid)
        return StoredSigningKey(
            id=uuid7(),
            kid=key.kid,
            public_jwk=key.public_jwk,
            private_key=self._sealer.seal(key.to_der(), context=_context(key.kid)),
            created_at=now,
            activates_at=now,
            retires_at=None,
        )

    def _take(self, stored: Sequence[StoredSigningKey]) -> None:
        keys = {row.kid: self._keys.get(row.kid) or unsealed(row, self._sealer) for row in stored}
        self._stored, self._keys = list(stored), keys
        self.jwks = to_json({"keys": [key.public_jwk for key in keys.values()]})
        self.etag = f'"{sha256(self.jwks).hexdigest()[:32]}"'


def unsealed(row: StoredSigningKey, sealer: Sealer) -> SigningKey:
    """A stored key, ready to sign. Raises: CannotOpen."""
    return SigningKey.from_der(sealer.open(row.private_key, context=_context(row.kid)))


def _context(kid: str) -> bytes:
    return b"signing_keys\0" + kid.encode()
