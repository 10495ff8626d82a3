"""Listing, choice, rotation and withdrawal of signing keys, for access tokens and id_tokens together."""

from datetime import datetime
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from wxauth.server.core.database import Database
from wxauth.server.core.trail import Actor
from wxauth.server.keys.keyring import IdTokenKeys, KeyRing
from wxauth.server.keys.models import StoredSigningKey
from wxauth.server.keys.rows import KEY_TABLES, published_keys
from wxauth.server.keys.rsa_keys import RSA_ALGORITHM, RsaKey
from wxauth.server.keys.succession import Keys, KeyState, NoSuchKey, key_state, signing_key_of
from wxauth.tokens.keys import SigningKey


class KeyAnswer(TypedDict):
    """A published key."""

    kid: Annotated[str, Field(examples=["…"])]
    alg: Annotated[str, Field(description="`ES256` signs access tokens, `RS256` id_tokens.", examples=["ES256"])]
    state: Annotated[KeyState, Field(description="`next` to sign, `signing`, or `former`.", examples=["signing"])]
    signs_from: datetime
    published_until: Annotated[datetime | None, Field(description="Null until it has a successor.")]


async def list_published(database: Database, *, now: datetime) -> tuple[list[KeyAnswer], list[KeyAnswer]]:
    """The keys of access tokens, and those of id_tokens: former ones, the signing key, the next one.

    Raises: StorageUnavailable.
    """
    rings = [await published_keys(database, now=now, table=table) for table in KEY_TABLES]
    of_access_tokens, of_id_tokens = ([_key_answer(key, stored, now) for key in stored] for stored in rings)
    return of_access_tokens, of_id_tokens


async def id_token_key(
    keys: KeyRing, id_token_keys: IdTokenKeys, alg: str | None, *, now: datetime
) -> RsaKey | SigningKey:
    """The key that signs id_tokens and logout tokens for a client with this algorithm. Raises: StorageUnavailable."""
    return await id_token_keys.read(now) if alg == RSA_ALGORITHM else keys.signing_key(now)


async def rotate_both(keys: KeyRing, id_token_keys: IdTokenKeys, *, by: Actor) -> StoredSigningKey:
    """Rotate both rings, as `Ring.rotate` does. Returns the next key of access tokens.

    Raises: StorageUnavailable, CannotOpen.
    """
    key = await keys.rotate(by=by)
    await id_token_keys.rotate()
    return key


async def withdraw_from_either_ring(
    keys: KeyRing, id_token_keys: IdTokenKeys, kid: str, *, by: Actor, now: datetime
) -> StoredSigningKey:
    """Withdraw a key of either ring, as `Ring.withdraw` does. Returns the key that now signs in its place.

    Raises: NoSuchKey, StorageUnavailable, CannotOpen.
    """
    try:
        return signing_key_of(await keys.withdraw(kid, by=by), now)
    except NoSuchKey:
        return signing_key_of(await id_token_keys.withdraw(kid, by=by), now)


def _key_answer(key: StoredSigningKey, stored: Keys, now: datetime) -> KeyAnswer:
    return {
        "kid": key.kid,
        "alg": key.public_jwk["alg"],
        "state": key_state(key, stored, now),
        "signs_from": key.activates_at,
        "published_until": key.retires_at,
    }
