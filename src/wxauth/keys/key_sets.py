"""The keys of one algorithm, as a process keeps them in memory."""

from datetime import datetime
from typing import Final, Generic, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric import rsa

from wxauth.core.ids import new_id
from wxauth.core.logs import get_logger
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer, signing_key_context
from wxauth.errors import StorageUnavailable
from wxauth.keys.models import Keys, StoredSigningKey, signing_key_of
from wxauth.tokens import PrivateKey

RSA_ALGORITHM: Final = "RS256"
"""The algorithm of the RSA keys, which sign only id_tokens and logout tokens."""
_RSA_BITS: Final = 2048
"""The length, in bits, of a new RSA key."""
_RSA_EXPONENT: Final = 65537
"""The public exponent of a new RSA key, which nearly all RSA keys share."""
NOT_READ: Final = "the signing keys have not been read yet"

log = get_logger()
Key = TypeVar("Key", bound=PrivateKey)


class RsaKey(PrivateKey):
    """An RS256 key."""

    __slots__ = ()
    alg = RSA_ALGORITHM
    kind = rsa.RSAPrivateKey

    @classmethod
    def generate(cls) -> Self:
        """Generate a new RS256 key."""
        return cls(rsa.generate_private_key(_RSA_EXPONENT, _RSA_BITS))


class KeySet(Generic[Key]):
    """The published keys of one algorithm, as this process last read them from the database.

    There are no keys before the first read.
    """

    def __init__(self, key_type: type[Key]) -> None:
        self.alg = key_type.alg
        self.key_type = key_type
        self.opened_rows: Keys = []
        """The stored keys that wxauth's secret keys can decrypt."""
        self.by_kid: dict[str, Key] = {}
        """The decrypted keys of `opened_rows`, by their kids."""
        self.unopened: list[str] = []
        """The kids of the stored keys that wxauth's secret keys cannot decrypt."""

    def signing_key(self, now: datetime) -> Key:
        """Return the key that signs now. Raises: StorageUnavailable, if no key has been read yet."""
        if not self.opened_rows:
            raise StorageUnavailable(NOT_READ)
        return self.by_kid[signing_key_of(self.opened_rows, now).kid]

    def replace(self, stored: Keys, sealer: Sealer, now: datetime) -> None:
        """Replace the keys that were read before, and log which keys cannot be decrypted or were withdrawn.

        Raises: CannotOpen, if none of the stored keys can be decrypted.
        """
        by_kid: dict[str, Key] = {}
        for row in stored:
            try:
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
        """Log which of the keys that were read before are no longer stored, although they have not retired."""
        remaining = {row.kid for row in stored}
        for row in self.opened_rows:
            has_retired = row.retires_at is not None and row.retires_at <= now
            if row.kid not in remaining and not has_retired:
                log.warning("signing_key_withdrawn", kid=row.kid, consequence="its tokens are refused")


def sealed_row(key: PrivateKey, sealer: Sealer, now: datetime, activates_at: datetime) -> StoredSigningKey:
    """Return the row of a new key, with the encrypted private key. The key signs from `activates_at` on."""
    return StoredSigningKey(
        id=new_id(now),
        alg=key.alg,
        kid=key.kid,
        public_jwk=key.public_jwk,
        private_key=sealer.seal(key.to_der(), context=signing_key_context(key.kid)),
        created_at=now,
        activates_at=activates_at,
        retires_at=None,
    )


def unsealed_key(row: StoredSigningKey, sealer: Sealer, key_type: type[Key]) -> Key:
    """Return the decrypted key of a row. Raises: CannotOpen, if no secret key of wxauth can decrypt the key."""
    return key_type.from_der(sealer.open(row.private_key, context=signing_key_context(row.kid)))
