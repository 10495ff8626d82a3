"""Which key signs, which comes next, and when a former one goes: decided from what is published, and from the time."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from wxauth.core.tables import StoredSigningKey

JWKS_MAX_AGE: Final = 300
"""Seconds for which whoever reads the published keys may keep them."""
LONGEST_TOKEN_TTL: Final = 86400
"""Seconds. The longest `ACCESS_TOKEN_TTL` allowed: another replica, or this one before its restart, may use it."""

# Every worker sees a change within 15 s, then every cache within its lifetime. The clocks of replicas and siblings
# may be 30 s apart. The rest is to spare.
_UNTIL_ALL_KNOW: Final = timedelta(seconds=JWKS_MAX_AGE + 60)
SIGNS_AFTER: Final = _UNTIL_ALL_KNOW
"""How long a new key is published before it signs."""
RETIRES_AFTER: Final = timedelta(seconds=LONGEST_TOKEN_TTL) + _UNTIL_ALL_KNOW
"""How long a key is published after its successor has begun to sign."""
_WAITS_AT_MOST: Final = 2 * SIGNS_AFTER
"""A key dated later than this was made by a clock ahead of ours. There is no reason to wait for it."""

Keys = Sequence[StoredSigningKey]
"""All published ones, the oldest first."""
MakeKey = Callable[[datetime], StoredSigningKey]
"""Makes a key that signs from then on."""


class NoSuchKey(Exception):
    """No published key has this id."""


class KeyState(StrEnum):
    """What a published key does."""

    NEXT = "next"
    SIGNING = "signing"
    FORMER = "former"


def signing(keys: Keys, now: datetime) -> StoredSigningKey:
    """The one that signs now: the newest active one."""
    for key in reversed(keys):
        if key.activates_at <= now:
            break
    return key  # where none is active, the oldest: its maker's clock was ahead of ours


def state_of(key: StoredSigningKey, keys: Keys, now: datetime) -> KeyState:
    """What one of them does now."""
    if key is signing(keys, now):
        return KeyState.SIGNING
    return KeyState.NEXT if key.activates_at > now else KeyState.FORMER


def has_next(keys: Keys, now: datetime) -> bool:
    """Whether a key waits to sign, and will within minutes."""
    return bool(keys) and now < keys[-1].activates_at <= now + _WAITS_AT_MOST


def is_due(keys: Keys, now: datetime, *, max_age: timedelta) -> bool:
    """Whether another key is to sign next, because the one that signs has its age, or there is none."""
    if not keys:
        return True
    # `abs`: a key dated `max_age` ahead of our clock has no age that we can trust, and is followed too.
    return not has_next(keys, now) and abs(now - signing(keys, now).created_at) >= max_age


def rotated(keys: Keys, make: MakeKey, *, now: datetime) -> Keys:
    """The keys with another one to sign next. One whose maker's clock was ahead is dated anew, and is it."""
    if not keys:
        return [make(now)]
    current = signing(keys, now)
    ahead = {key.kid for key in keys if key.activates_at > now + _WAITS_AT_MOST}
    *others, last = (_dated(key, now) if key.kid in ahead else key for key in keys)
    if others and last.kid in ahead:
        return _followed(others, _dated(last, now + SIGNS_AFTER), until_then=current)
    return _followed([*others, last], make(now + SIGNS_AFTER), until_then=current)


def without(keys: Keys, kid: str, make: MakeKey, *, now: datetime) -> Keys:
    """The keys but this one. Where it signed, the next one does so at once, else a new one; a next one is replaced.

    Raises: NoSuchKey.
    """
    withdrawn = next((key for key in keys if key.kid == kid), None)
    if withdrawn is None:
        raise NoSuchKey(kid)
    others = [key for key in keys if key is not withdrawn]
    match state_of(withdrawn, keys, now):
        case KeyState.SIGNING:
            if not others or others[-1].activates_at <= now:
                return _followed(others, make(now))
            *former, successor = (_dated(key, now) if key.activates_at > now else key for key in others)
            return _followed(former, successor)
        case KeyState.NEXT if not has_next(others, now):
            return rotated(others, make, now=now)
    return others


def _followed(keys: Keys, successor: StoredSigningKey, *, until_then: StoredSigningKey | None = None) -> Keys:
    """The keys with this one after them. They go when no token of the one that signs until then is left."""
    retires_at = successor.activates_at + RETIRES_AFTER

    def retiring(key: StoredSigningKey) -> StoredSigningKey:
        goes_earlier = key.retires_at is not None and key.retires_at <= retires_at
        is_last_to_sign = until_then is not None and key.kid == until_then.kid
        return key if goes_earlier and not is_last_to_sign else _with(key, retires_at=retires_at)

    return [*map(retiring, keys), successor]


def _dated(key: StoredSigningKey, activates_at: datetime) -> StoredSigningKey:
    return _with(key, created_at=min(key.created_at, activates_at), activates_at=activates_at, retires_at=None)


def _with(key: StoredSigningKey, **changed: datetime | None) -> StoredSigningKey:
    return StoredSigningKey(**{**key.model_dump(), **changed})
