"""`/v1/admin/keys`: administrators see and change the keys that sign access tokens and id_tokens."""

from datetime import datetime
from typing import Annotated, Final

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from wxauth.errors import NotFound, Title
from wxauth.server.core.logs import get_logger
from wxauth.server.keys.both_rings import KeyAnswer, list_published, rotate_both, withdraw_from_either_ring
from wxauth.server.keys.dependencies import IdTokenKeysDep, KeyRingDep
from wxauth.server.keys.succession import NoSuchKey
from wxauth.server.users.callers import AdministratorDep, FreshAdministratorDep
from wxauth.server.web.dependencies import ClockDep, DatabaseDep
from wxauth.server.web.direct import Router

router = Router("admin")

Kid = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-]{1,128}$")]

_NO_SUCH_KEY: Final = NotFound("there is no published key with that id")

log = get_logger()


class KeysAnswer(TypedDict):
    """The published keys."""

    items: Annotated[list[KeyAnswer], Field(description="The keys of access tokens, the oldest first.")]
    id_token_keys: Annotated[
        list[KeyAnswer],
        Field(description="The keys of id_tokens, if there are websites; the oldest first.", examples=[[]]),
    ]
    next_cursor: None


class RotatedKeysAnswer(TypedDict):
    """The key that signs next."""

    kid: Annotated[str, Field(examples=["…"])]
    signs_from: Annotated[
        datetime, Field(description="When every cache has had time to fetch it.", examples=["2026-11-20T08:06:00Z"])
    ]


class WithdrawnKeyAnswer(TypedDict):
    """The withdrawn key, and the key that signs now."""

    kid: Annotated[str, Field(examples=["…"])]
    signing: Annotated[str, Field(examples=["…"])]


@router.get("/v1/admin/keys", summary=Title("List the signing keys", "列出签名密钥"))
async def list_keys(_: AdministratorDep, database: DatabaseDep, clock: ClockDep) -> KeysAnswer:
    """Every published key: former keys, the signing key, the next key."""
    of_access_tokens, of_id_tokens = await list_published(database, now=clock())
    return {"items": of_access_tokens, "id_token_keys": of_id_tokens, "next_cursor": None}


@router.post("/v1/admin/keys/rotate", summary=Title("Rotate the signing key", "发布新的签名密钥"))
async def rotate_key(
    administrator: FreshAdministratorDep, keys: KeyRingDep, id_token_keys: IdTokenKeysDep
) -> RotatedKeysAnswer:
    """Publish a new key, which signs six minutes later.

    Siblings pick it up automatically. If there is a next key already, it is kept.
    """
    key = await rotate_both(keys, id_token_keys, by=administrator)
    return {"kid": key.kid, "signs_from": key.activates_at}


@router.post(
    "/v1/admin/keys/{kid}/withdraw",
    summary=Title("Withdraw a signing key", "立即撤回签名密钥"),
    failures=[_NO_SUCH_KEY],
)
async def withdraw_key(
    administrator: FreshAdministratorDep, keys: KeyRingDep, id_token_keys: IdTokenKeysDep, clock: ClockDep, kid: Kid
) -> WithdrawnKeyAnswer:
    """For a stolen key: its tokens are refused from now on.

    If it was signing, its successor (made if necessary) signs at once. If it was next in line, a replacement is made.
    Sessions continue: their next refresh gives a token of another key.
    """
    try:
        signs = await withdraw_from_either_ring(keys, id_token_keys, kid, by=administrator, now=clock())
    except NoSuchKey:
        raise NotFound(_NO_SUCH_KEY.detail) from None
    log.info("signing_key_withdrawn_by", kid=kid, actor=administrator.name)
    return {"kid": kid, "signing": signs.kid}
