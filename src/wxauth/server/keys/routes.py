"""The JWK set with the public keys (RFC 7517)."""

from hashlib import sha256

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from wxauth.errors import KeysUnavailable, Title
from wxauth.server.keys.dependencies import IdTokenKeysDep, KeyRingDep
from wxauth.server.keys.succession import JWKS_MAX_AGE
from wxauth.server.web.caching import cacheable_response
from wxauth.server.web.direct import Router

router = Router("keys")


@router.get(
    "/.well-known/jwks.json",
    summary=Title("Public signing keys", "签名公钥"),
    operation_id="read_signing_keys",
    responses={
        200: {
            "description": "A JWK set (RFC 7517)",
            "content": {
                "application/json": {
                    "example": {
                        "keys": [
                            {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "…", "x": "…", "y": "…"}
                        ]
                    }
                }
            },
        },
        304: {"description": "Not changed"},
    },
    failures=[KeysUnavailable],
)
async def jwks(request: Request, keys: KeyRingDep, id_token_keys: IdTokenKeysDep) -> Response:
    """The keys that verify access tokens, and id_tokens (RS256) if there are websites. Cacheable for five minutes."""
    if not keys.is_ready:
        raise KeysUnavailable("the signing keys have not been read yet")
    await id_token_keys.refresh_if_empty()  # another replica may have issued the first id_token
    jwks = to_json({"keys": [*keys.public_jwks, *id_token_keys.public_jwks]})
    etag = f'"{sha256(jwks).hexdigest()[:32]}"'
    headers = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE}"}
    return cacheable_response(request, jwks, etag=etag, headers=headers, media_type="application/json")
