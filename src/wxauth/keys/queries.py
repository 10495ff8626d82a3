"""The statements for signing keys, and the list of the published keys for the API and the command line."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import Field
from typing_extensions import TypedDict

from wxauth.core.database import Database, Transaction
from wxauth.core.statements import Nothing, Statement, columns_of
from wxauth.core.upkeep import Reseal
from wxauth.keys.models import (
    LONGEST_TOKEN_TTL_SECONDS,
    RSA_ALGORITHM,
    Keys,
    KeyState,
    StoredSigningKey,
    key_state,
    keys_for,
)
from wxauth_guard.claims import ALGORITHM

_COLUMNS: Final = columns_of(StoredSigningKey)

# If two processes add or withdraw keys at the same time, the second process waits for this lock, and then reads the
# keys that the first process has stored.
_LOCK: Final = Statement[object]("SELECT pg_advisory_xact_lock(hashtext('wxauth.signing_keys'))")
PUBLISHED: Final = Statement[StoredSigningKey](f"""
SELECT {", ".join(_COLUMNS)} FROM signing_keys
 WHERE (retires_at IS NULL OR retires_at > :now)
   -- A key whose private half was erased has retired, even if the clock was set back later.
   AND private_key <> ''
 ORDER BY activates_at, id
""")
_ADD: Final = Statement[Nothing](f"""
INSERT INTO signing_keys ({", ".join(_COLUMNS)}) VALUES ({", ".join(f":{name}" for name in _COLUMNS)})
""")
_CHANGE_DATES: Final = Statement[Nothing]("""
UPDATE signing_keys
   SET created_at = :created_at, activates_at = :activates_at, retires_at = :retires_at
 WHERE id = :id
""")
_KEEP_LONGER: Final = Statement[Nothing]("""
UPDATE signing_keys
   SET id_token_ttl = :ttl::bigint,
       retires_at = retires_at
                  + (GREATEST(:usual::bigint, :ttl) - GREATEST(:usual::bigint, id_token_ttl)) * interval '1 second'
 WHERE alg = :alg AND id_token_ttl < :ttl
   -- This difference is the time six minutes after the successor has begun to sign, when the key signs no more.
   AND (retires_at IS NULL
        OR retires_at - GREATEST(:usual::bigint, id_token_ttl) * interval '1 second' > :now)
""")
# A new key may sign at once, or later, for each site that there is.
LONGEST_ID_TOKEN: Final = Statement[int]("""
SELECT COALESCE(max(id_token_ttl), 0) FROM clients WHERE id_token_alg = :alg AND removed_by IS NULL
""")
_DELETE: Final = Statement[Nothing]("DELETE FROM signing_keys WHERE id = :id")
reseal_key: Final = Reseal.of("signing_keys", "private_key", key="id")
# `wxauth secret reseal` reads only published keys, so a private half that remained would stay encrypted with the
# previous secret key.
ERASE_RETIRED: Final = Statement[str]("""
UPDATE signing_keys SET private_key = '' WHERE retires_at <= :now AND private_key <> '' RETURNING kid
""")
# The public half of a retired key stays, because a site may log a user out with an id_token of any age. Only the keys
# that were withdrawn are deleted.
PUBLIC_HALF: Final = Statement[dict[str, Any]]("SELECT public_jwk FROM signing_keys WHERE kid = :kid AND alg = :alg")
NOTE_ISSUER: Final = Statement[Nothing]("""
INSERT INTO issuers (issuer, used_at) VALUES (:issuer, :now)
ON CONFLICT (issuer) DO UPDATE SET used_at = GREATEST(issuers.used_at, excluded.used_at)
""")
HAS_SERVED: Final = Statement[bool]("SELECT EXISTS (SELECT FROM issuers)")
PREVIOUS_ISSUER: Final = Statement[tuple[str, datetime]]("""
SELECT issuer, used_at FROM issuers WHERE issuer <> :issuer ORDER BY used_at DESC LIMIT 1
""")
FORGET_ISSUERS: Final = Statement[Nothing]("DELETE FROM issuers WHERE used_at <= :before")
# A client is a site if it has a title. A removed site counts until its row is deleted.
HAS_SITES: Final = Statement[bool]("SELECT EXISTS (SELECT FROM clients WHERE title IS NOT NULL)")


async def lock_keys(transaction: Transaction, *, now: datetime) -> Sequence[StoredSigningKey]:
    """Lock the keys until the transaction ends. Return those that are published now, the oldest first."""
    await transaction.value(_LOCK)
    return await transaction.rows(PUBLISHED, now=now)


async def store_keys(
    transaction: Transaction, before: Sequence[StoredSigningKey], after: Sequence[StoredSigningKey]
) -> None:
    """Store the difference between two states of the locked keys: new keys, new dates and deleted keys."""
    unmatched = {key.id: key for key in before}
    for key in after:
        stored = unmatched.pop(key.id, None)
        if stored is None:
            await transaction.run(_ADD, **key.model_dump())
        elif stored != key:
            dates = {"created_at": key.created_at, "activates_at": key.activates_at, "retires_at": key.retires_at}
            await transaction.run(_CHANGE_DATES, id=key.id, **dates)
    for deleted_id in unmatched:
        await transaction.run(_DELETE, id=deleted_id)


async def keep_for_id_tokens(transaction: Transaction, *, alg: str, ttl: int, now: datetime) -> None:
    """Publish the keys that may sign id_tokens with this lifetime until these id_tokens have expired."""
    await transaction.value(_LOCK)
    await transaction.run(_KEEP_LONGER, alg=alg, ttl=ttl, usual=LONGEST_TOKEN_TTL_SECONDS, now=now)


class KeyAnswer(TypedDict):
    """A published key."""

    kid: Annotated[str, Field(examples=["…"])]
    alg: Annotated[
        str,
        Field(
            description="An `ES256` key signs access tokens, and the id_tokens of clients whose `id_token_alg` is "
            "ES256. An `RS256` key signs all other id_tokens.",
            examples=["ES256"],
        ),
    ]
    state: Annotated[KeyState, Field(description="`next` to sign, `signing`, or `former`.", examples=["signing"])]
    signs_from: Annotated[datetime, Field(description="When the key begins, or began, to sign.")]
    published_until: Annotated[
        datetime | None, Field(description="When the key is no longer published. Null until the key has a successor.")
    ]


async def list_published(database: Database, *, now: datetime) -> tuple[list[KeyAnswer], list[KeyAnswer]]:
    """Return the published ES256 keys and the published RS256 keys, former keys first and next keys last."""
    published = await database.rows(PUBLISHED, now=now)
    return _key_answers(keys_for(ALGORITHM, published), now), _key_answers(keys_for(RSA_ALGORITHM, published), now)


def _key_answers(keys: Keys, now: datetime) -> list[KeyAnswer]:
    return [
        {
            "kid": key.kid,
            "alg": key.alg,
            "state": key_state(key, keys, now),
            "signs_from": key.activates_at,
            "published_until": key.retires_at,
        }
        for key in keys
    ]
