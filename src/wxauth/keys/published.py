"""The published keys, as administrators see them in the API and on the command line."""

from datetime import datetime
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from wxauth.core.database import Database
from wxauth.keys.key_sets import RSA_ALGORITHM
from wxauth.keys.models import Keys, KeyState, key_state, keys_for
from wxauth.keys.queries import PUBLISHED
from wxauth_guard.claims import ALGORITHM


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
    """Return the descriptions of the published ES256 keys, and of the published RS256 keys (see `KeyRing`).

    Each list begins with the former keys, and ends with the next key, if there are such keys.
    """
    published = await database.rows(PUBLISHED, now=now)
    return _key_answers(keys_for(ALGORITHM, published), now), _key_answers(keys_for(RSA_ALGORITHM, published), now)


def _key_answers(keys: Keys, now: datetime) -> list[KeyAnswer]:
    """Return the descriptions of all keys of one algorithm, in the order of the keys."""
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
