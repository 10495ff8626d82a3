"""The route for the JWK set (RFC 7517), and `/v1/admin/keys`, with which administrators list and change the keys."""

from datetime import datetime
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends
from pydantic import BaseModel, Field, StrictBool, StringConstraints
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from wxauth.core.logs import get_logger
from wxauth.errors import NotFound
from wxauth.i18n import lazy_gettext as _
from wxauth.keys.keyring import NOT_READ, KeyRing
from wxauth.keys.models import JWKS_MAX_AGE_SECONDS, JWKS_PATH, UNKNOWN_KEY
from wxauth.keys.queries import KeyAnswer, list_published
from wxauth.users.callers import AdministratorDep, FreshAdministratorDep
from wxauth.web.answers import cacheable_response
from wxauth.web.dependencies import ClockDep, DatabaseDep, provide
from wxauth.web.direct import Router
from wxauth.web.schemas import body_like
from wxauth_guard.errors import KeysUnavailable

router = Router("keys")
admin_router = Router("admin")

KeyRingDep = Annotated[KeyRing, Depends(provide(KeyRing))]
Kid = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-]{1,128}$")]  # wxauth's own have 43 characters
_NO_SUCH_KEY: Final = NotFound(UNKNOWN_KEY)
_ETAG_DIGITS: Final = 32
_EXAMPLE_JWKS: Final = {
    "keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "…", "x": "…", "y": "…"}]
}

log = get_logger()


class KeysAnswer(TypedDict):
    """The response with the published keys."""

    items: Annotated[list[KeyAnswer], Field(description="The ES256 keys, the oldest first.")]
    id_token_keys: Annotated[
        list[KeyAnswer],
        Field(description="The RS256 keys, if there are websites; the oldest first.", examples=[[]]),
    ]
    next_cursor: None  # always, because the list has only one page


class RotateKeysRequest(BaseModel):
    """The options for rotating the keys."""

    model_config = body_like({"at_once": True})

    at_once: StrictBool = Field(
        default=False, description="Sign with the next key in six minutes, which is too soon for some API gateways."
    )


class RotatedKeysAnswer(TypedDict):
    """The key that will sign access tokens next."""

    kid: Annotated[str, Field(description="The kid of the next key.", examples=["…"])]
    signs_from: Annotated[
        datetime,
        Field(
            description="When the key begins to sign. By then, every cache has had time to fetch the key.",
            examples=["2026-11-20T08:06:00Z"],
        ),
    ]


class WithdrawnKeyAnswer(TypedDict):
    """The withdrawn key, and the key that signs now."""

    kid: Annotated[str, Field(description="The kid of the withdrawn key.", examples=["…"])]
    signing: Annotated[
        str, Field(description="The kid of the key with the same algorithm that signs now.", examples=["…"])
    ]


@router.get(
    JWKS_PATH,
    summary=_("Public signing keys"),
    operation_id="read_signing_keys",
    responses={
        HTTPStatus.OK: {
            "description": "A JWK set (RFC 7517)",
            "content": {"application/json": {"example": _EXAMPLE_JWKS}},
        },
        HTTPStatus.NOT_MODIFIED: {"description": "Not changed"},
    },
    failures=[KeysUnavailable],
)
async def read_signing_keys(request: Request, keys: KeyRingDep) -> Response:
    """Return the ES256 keys and, if there are websites, the RS256 keys. They verify access tokens and id_tokens.

    Caches may keep the response for five minutes.
    """
    if not keys.is_ready:
        raise KeysUnavailable(NOT_READ)
    await keys.refresh_for_first_site()
    content = keys.jwks
    etag = f'"{sha256(content).hexdigest()[:_ETAG_DIGITS]}"'
    headers = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE_SECONDS}"}
    return cacheable_response(request, content, etag=etag, headers=headers, media_type="application/json")


@admin_router.get("/v1/admin/keys", summary=_("List the signing keys"))
async def list_keys(_administrator: AdministratorDep, database: DatabaseDep, clock: ClockDep) -> KeysAnswer:
    """Return every published key: former keys, the signing key, and the next key."""
    of_access_tokens, of_id_tokens = await list_published(database, now=clock())
    return {"items": of_access_tokens, "id_token_keys": of_id_tokens, "next_cursor": None}


@admin_router.post("/v1/admin/keys/rotate", summary=_("Rotate the signing key"))
async def rotate_key(
    administrator: FreshAdministratorDep, keys: KeyRingDep, body: RotateKeysRequest | None = None
) -> RotatedKeysAnswer:
    """Publish a new key for access tokens and, if there are websites, one for id_tokens.

    They sign after `SIGNING_KEY_LEAD`, by default a day later. With `at_once`, they sign six minutes later. Other
    services fetch the keys automatically. If there is already a next key of one kind, no other key of this kind is
    created, and the next key keeps its time, unless `at_once` is true. The response describes the next key of access
    tokens.
    """
    key = await keys.rotate(at_once=body is not None and body.at_once, by=administrator)
    return {"kid": key.kid, "signs_from": key.activates_at}


@admin_router.post("/v1/admin/keys/{kid}/withdraw", summary=_("Withdraw a signing key"), failures=[_NO_SUCH_KEY])
async def withdraw_key(administrator: FreshAdministratorDep, keys: KeyRingDep, kid: Kid) -> WithdrawnKeyAnswer:
    """Withdraw a key, for example because it was stolen.

    wxauth refuses the tokens signed with the key within 15 seconds, and every guard refuses them within five minutes.

    If the key was signing, its successor, which is created if necessary, signs at once. If the key was the next key, a
    new key replaces it. Sessions continue, because their next refresh returns a token signed by another key.
    """
    signing_key = await keys.withdraw(kid, by=administrator)
    # Every process logs `signing_key_withdrawn` when it reads the keys. Only this line names the administrator.
    log.info("signing_key_withdrawn_by", kid=kid, actor=administrator.name)
    return {"kid": kid, "signing": signing_key.kid}
