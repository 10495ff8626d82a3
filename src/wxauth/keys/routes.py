"""What siblings and foreign verifiers look up: public keys and metadata (RFC 7517, RFC 8414)."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from wxauth.core.services import ServicesDep
from wxauth.errors import KeysUnavailable
from wxauth.keys.succession import JWKS_MAX_AGE
from wxauth.tokens.claims import ALGORITHM
from wxauth.web.answers import failures
from wxauth.web.caching import cacheable_response

router = APIRouter(tags=["keys"])


@router.get(
    "/.well-known/jwks.json",
    operation_id="read_signing_keys",
    summary="Public signing keys",
    response_class=Response,
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
        **failures(KeysUnavailable),
    },
)
async def jwks(request: Request, services: ServicesDep) -> Response:
    """The keys that check access tokens. Cacheable for five minutes."""
    keys = services.keys
    if not keys.is_ready:
        raise KeysUnavailable("the signing keys have not been read yet")
    headers = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE}"}
    return cacheable_response(request, keys.jwks, etag=keys.etag, headers=headers, media_type="application/json")


_EXAMPLE_METADATA: dict[str, Any] = {
    "issuer": "https://auth.example.com",
    "jwks_uri": "https://auth.example.com/.well-known/jwks.json",
    "introspection_endpoint": "https://auth.example.com/v1/introspect",
    "introspection_endpoint_auth_methods_supported": ["client_secret_basic"],
    "response_types_supported": [],
    "grant_types_supported": [],
    "subject_types_supported": ["public"],
    "id_token_signing_alg_values_supported": ["ES256"],
}


_METADATA_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": _EXAMPLE_METADATA}}}
}


@router.get(
    "/.well-known/openid-configuration",
    operation_id="read_openid_configuration",
    summary="Metadata, where OpenID Connect looks for it",
    responses=_METADATA_RESPONSES,
)
@router.get(
    "/.well-known/oauth-authorization-server",
    operation_id="read_metadata",
    summary="Authorization server metadata",
    responses=_METADATA_RESPONSES,
)
async def metadata(services: ServicesDep, response: Response) -> dict[str, Any]:
    """Where the keys are, which algorithm signs, where to ask about a token (RFC 8414); the same at both paths."""
    issuer = services.settings.issuer
    response.headers["Cache-Control"] = f"public, max-age={JWKS_MAX_AGE}"
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "introspection_endpoint": f"{issuer}/v1/introspect",
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic"],
        "response_types_supported": [],
        "grant_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
    }
