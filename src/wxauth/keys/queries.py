"""The statements that read, lock, store and delete the signing keys of access tokens and id_tokens."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from wxauth.core.database import Transaction
from wxauth.core.statements import Nothing, Statement, columns_of
from wxauth.core.upkeep import Reseal
from wxauth.keys.models import StoredSigningKey

_COLUMNS: Final = columns_of(StoredSigningKey)

# If two processes add or withdraw keys at the same time, the second process waits for this lock, and then reads the
# keys that the first process has stored.
_LOCK: Final = Statement[object]("SELECT pg_advisory_xact_lock(hashtext('wxauth.signing_keys'))")
PUBLISHED: Final = Statement[StoredSigningKey](f"""
SELECT {", ".join(_COLUMNS)} FROM signing_keys
 WHERE (retires_at IS NULL OR retires_at > :now) AND private_key <> ''
 ORDER BY activates_at, id
""")
"""The query for the keys that have not retired, including keys that do not sign yet, the oldest first.

A key whose private half was erased has retired, even if the clock was set back later.
"""
_ADD: Final = Statement[Nothing](f"""
INSERT INTO signing_keys ({", ".join(_COLUMNS)}) VALUES ({", ".join(f":{name}" for name in _COLUMNS)})
""")
# `created_at` changes only if a clock was ahead when the key was created (see `_activating_at` in `keys/models.py`).
_CHANGE_DATES: Final = Statement[Nothing]("""
UPDATE signing_keys SET created_at = :created_at, activates_at = :activates_at, retires_at = :retires_at WHERE id = :id
""")
_DELETE: Final = Statement[Nothing]("DELETE FROM signing_keys WHERE id = :id")
reseal_key: Final = Reseal.of("signing_keys", "private_key", key="id")
"""The replacement of an encrypted private key with the same key, encrypted with a new `WXAUTH_SECRET_KEY`."""
ERASE_RETIRED: Final = Statement[str]("""
UPDATE signing_keys SET private_key = '' WHERE retires_at <= :now AND private_key <> '' RETURNING kid
""")
"""The statement that erases the private halves of retired keys, and returns the `kid` of these keys.

`wxauth secret reseal` reads only published keys, so a private half that remained would stay encrypted with the previous
secret key.
"""
DELETE_RETIRED: Final = Statement[Nothing]("DELETE FROM signing_keys WHERE retires_at <= :longest_session_ago")
"""The statement that deletes the keys that no token needs any more.

A retired key is deleted only after the longest session of a site has ended, because until then, an id_token that the
key has signed can end its site's session. Every session of a site that began before `longest_session_ago` has ended.
"""
# The query includes retired keys, because an expired id_token still identifies the session that it can end.
PUBLIC_HALF: Final = Statement[dict[str, Any]]("SELECT public_jwk FROM signing_keys WHERE kid = :kid AND alg = :alg")
"""The query for the public half of the key with this `kid` and algorithm, which verifies id_tokens."""
# A client is a site if it has a title.
HAS_SITES: Final = Statement[bool]("SELECT EXISTS (SELECT FROM clients WHERE title IS NOT NULL)")
"""The query that returns whether there is a site. A removed site counts until housekeeping has deleted it.

Before the first site, wxauth usually needs no key for id_tokens.
"""


async def lock_keys(transaction: Transaction, *, now: datetime) -> Sequence[StoredSigningKey]:
    """Lock the keys until the transaction ends. Return the keys that are published now, the oldest first."""
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
