"""The table of signing keys, and the rules for them.

The rules decide which key signs, which key is next, and when a former key retires.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, Text
from sqlalchemy.dialects.postgresql import BYTEA, JSONB
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME
from wxauth.errors import NotFound
from wxauth.settings.settings import LONGEST_KEY_LEAD


class StoredSigningKey(SQLModel):
    """An ES256 key signs access tokens, and the id_tokens and logout tokens of sites whose `id_token_alg` is ES256.

    An RS256 key signs the id_tokens and logout tokens of other sites.
    """

    id: UUID = Field(primary_key=True)
    alg: str = Field(sa_type=Text)
    kid: str = Field(sa_type=Text)
    public_jwk: dict[str, Any] = Field(sa_type=JSONB)
    private_key: bytes = Field(sa_type=BYTEA, repr=False)  # PKCS#8, encrypted; empty after the key has retired
    # Only the previous version reads this date. It makes a successor, which signs six minutes later, as soon as the
    # signing key's date is `SIGNING_KEY_MAX_AGE` ago, so the date is set anew when a successor begins to wait.
    created_at: datetime = Field(sa_type=TIME)
    # The key begins to sign at this time. It is published earlier, so that verifiers know it.
    activates_at: datetime = Field(sa_type=TIME)
    # The longest lifetime that a site's `--id-token-ttl` has allowed while the key could sign; 0 without one.
    id_token_ttl: int = Field(default=0, sa_type=BigInteger)
    # The key is no longer published from this time on, which is null until the key has a successor.
    retires_at: datetime | None = Field(sa_type=TIME)


class SigningKeyRow(StoredSigningKey, table=True):
    """RS256 keys exist only if there has been a site, or if clients could become sites without registration."""

    __tablename__ = "signing_keys"


class UsedIssuer(SQLModel, table=True):
    """A URL under which the service has issued tokens."""

    __tablename__ = "issuers"

    issuer: str = Field(sa_type=Text, primary_key=True)
    used_at: datetime = Field(sa_type=TIME)  # to about a day


RSA_ALGORITHM: Final = "RS256"  # signs only id_tokens and logout tokens
JWKS_PATH: Final = "/.well-known/jwks.json"
JWKS_MAX_AGE_SECONDS: Final = 300  # for which other services and caches may store the keys
# A key retires after the longest lifetime that a setting allows. The present setting does not count, because another
# replica, or this replica before a restart, may have issued tokens that live longer.
LONGEST_TOKEN_TTL_SECONDS: Final = 86400

# Every worker reads the keys after a pause of 5 s (`REFRESH_PAUSE_SECONDS` in `keys/keyring.py`), and a statement takes
# at most 8 s (`Deadlines.total`), so a worker usually knows a change within 15 s. Every cache fetches it within
# `JWKS_MAX_AGE_SECONDS` after that. The clocks of replicas and other services may differ by 30 s, and 15 s are a
# reserve for slow reads.
_UNTIL_ALL_KNOW: Final = timedelta(seconds=JWKS_MAX_AGE_SECONDS + 60)
SHORTEST_LEAD: Final = _UNTIL_ALL_KNOW
# The time from the moment at which a key's successor begins to sign until the key retires, unless it may have signed
# id_tokens that live longer.
RETIRES_AFTER: Final = timedelta(seconds=LONGEST_TOKEN_TTL_SECONDS) + _UNTIL_ALL_KNOW
# A key that begins to sign later was created by a replica whose clock was ahead, so it is not the next key. Any lead
# that `SIGNING_KEY_LEAD` allows counts, because another replica may have another setting.
_MAX_WAIT: Final = timedelta(seconds=LONGEST_KEY_LEAD) + _UNTIL_ALL_KNOW

Keys = Sequence[StoredSigningKey]  # of an algorithm, the oldest first
MakeKey = Callable[[datetime], StoredSigningKey]  # takes the time at which the key begins to sign

UNKNOWN_KEY: Final = "no published key has this ID: tokens of a withdrawn or retired key are already refused"


class KeyState(StrEnum):
    NEXT = "next"
    SIGNING = "signing"
    FORMER = "former"  # published until the tokens that it has signed have expired


def keys_for(alg: str, published: Sequence[StoredSigningKey]) -> Keys:
    return [key for key in published if key.alg == alg]


def signing_key_of(keys: Keys, now: datetime) -> StoredSigningKey:
    """Return the newest active key or, if no key is active yet, the oldest key. `keys` must not be empty."""
    for key in reversed(keys):
        if key.activates_at <= now:
            return key
    return keys[0]  # a replica whose clock was ahead has created all keys, so that none is active yet


def key_state(key: StoredSigningKey, keys: Keys, now: datetime) -> KeyState:
    """`key` must be one of `keys`."""
    if key.kid == signing_key_of(keys, now).kid:
        return KeyState.SIGNING
    return KeyState.NEXT if key.activates_at > now else KeyState.FORMER


def has_next(keys: Keys, now: datetime, *, within: timedelta = _MAX_WAIT) -> bool:
    """Return whether there is a published key that will begin to sign by itself."""
    return bool(keys) and now < keys[-1].activates_at <= now + within


def is_due(keys: Keys, now: datetime, *, max_age: timedelta, lead: timedelta) -> bool:
    """Return whether a key must be created, so that no key signs for longer than `max_age`."""
    if not keys:
        return True
    # A replica with a wrong clock may have stored a time in the future. Because of `abs`, such a key is also due to be
    # replaced, if this time is far enough ahead.
    return not has_next(keys, now) and abs(now - signing_key_of(keys, now).activates_at) >= max_age - lead


def rotated(keys: Keys, make: MakeKey, *, now: datetime, lead: timedelta) -> Keys:
    """Return the keys with a next key that signs after `lead`. If there are no keys, return one that signs at once.

    A waiting key becomes the next key instead, with new dates, unless it is the only key. Other keys that a replica
    with a clock far ahead has created become active now.
    """
    if not keys:
        return [make(now)]
    current = signing_key_of(keys, now)

    def corrected(key: StoredSigningKey) -> StoredSigningKey:
        if key.activates_at > now + _MAX_WAIT:
            return _activating_at(key, now)
        return _activating_at(key, min(key.activates_at, now + lead)) if key.activates_at > now else key

    # The last key can become the next key only if another key signs until then.
    if len(keys) > 1 and keys[-1].activates_at > now:
        others, successor = keys[:-1], _activating_at(keys[-1], now + lead)
    else:
        others, successor = keys, make(now + lead)
    return _with_successor([corrected(key) for key in others], successor, signer=current, now=now)


def without_key(keys: Keys, kid: str, make: MakeKey, *, now: datetime, lead: timedelta) -> Keys:
    """Return the keys without the key that has this kid.

    If the withdrawn key was the signing key, the next key signs at once or, if there is no next key, a new key. If the
    withdrawn key was the only next key, a new next key replaces it.

    Raises: NotFound, if no key has this kid.
    """
    withdrawn = next((key for key in keys if key.kid == kid), None)
    if withdrawn is None:
        raise NotFound(UNKNOWN_KEY)
    others = [key for key in keys if key.kid != kid]
    match key_state(withdrawn, keys, now):
        case KeyState.SIGNING:
            if not others or others[-1].activates_at <= now:
                return _with_successor(others, make(now), now=now)
            # All later keys become active, and the last key signs.
            active = [_activating_at(key, now) if key.activates_at > now else key for key in others]
            return _with_successor(active[:-1], active[-1], now=now)
        case KeyState.NEXT if not has_next(others, now):
            return rotated(others, make, now=now, lead=lead)
    return others


def _with_successor(
    keys: Keys, successor: StoredSigningKey, *, signer: StoredSigningKey | None = None, now: datetime
) -> Keys:
    """Let the successor begin to sign, and the others retire when their tokens have expired, or earlier if they do so.

    The `signer` never retires earlier, because its tokens must have expired by then.
    """

    def retiring(key: StoredSigningKey) -> StoredSigningKey:
        # A key that a replica of the previous version has made knows no lifetime, but its successor does.
        longest = timedelta(seconds=max(LONGEST_TOKEN_TTL_SECONDS, key.id_token_ttl, successor.id_token_ttl))
        retires_at = successor.activates_at + longest + _UNTIL_ALL_KNOW
        retires_earlier = key.retires_at is not None and key.retires_at <= retires_at
        is_signer = signer is not None and key.kid == signer.kid
        if retires_earlier and not is_signer:
            return key
        return key.model_copy(update={"retires_at": retires_at, "created_at": now if is_signer else key.created_at})

    return [*(retiring(key) for key in keys), successor]


def _activating_at(key: StoredSigningKey, activates_at: datetime) -> StoredSigningKey:
    return key.model_copy(update={"created_at": activates_at, "activates_at": activates_at, "retires_at": None})
