"""The service's metadata, for siblings and for sites (RFC 8414, OpenID Connect Discovery)."""

from typing import Any

from starlette.responses import JSONResponse

from wxauth.errors import Title
from wxauth.server.clients.clients import ID_TOKEN_ALGS
from wxauth.server.clients.site_scopes import CLAIMS, SITE_SCOPE_NAMES
from wxauth.server.keys.succession import JWKS_MAX_AGE
from wxauth.server.web.dependencies import SettingsDep
from wxauth.server.web.direct import Router
from wxauth.server.websites.authorize import AUTHORIZE_PATH, CHALLENGE_METHOD, RESPONSE_MODES, RESPONSE_TYPE
from wxauth.server.websites.id_tokens import PROTOCOL_CLAIMS
from wxauth.server.websites.site_tokens import GRANT_TYPES

_WITH_SECRET: list[str] = ["client_secret_basic", "client_secret_post"]

router = Router("keys")


def _document(issuer: str) -> dict[str, Any]:
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "authorization_endpoint": f"{issuer}{AUTHORIZE_PATH}",
        "token_endpoint": f"{issuer}/v1/token",
        "token_endpoint_auth_methods_supported": [*_WITH_SECRET, "none"],
        "device_authorization_endpoint": f"{issuer}/v1/device_authorization",
        "userinfo_endpoint": f"{issuer}/v1/userinfo",
        "revocation_endpoint": f"{issuer}/v1/revoke",
        "revocation_endpoint_auth_methods_supported": [*_WITH_SECRET, "none"],
        "introspection_endpoint": f"{issuer}/v1/introspect",
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic"],
        "end_session_endpoint": f"{issuer}/v1/end_session",
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "response_types_supported": [RESPONSE_TYPE],
        "response_modes_supported": list(RESPONSE_MODES),
        "grant_types_supported": list(GRANT_TYPES),
        "code_challenge_methods_supported": [CHALLENGE_METHOD],
        "scopes_supported": list(SITE_SCOPE_NAMES),
        "claims_supported": [*PROTOCOL_CLAIMS, *CLAIMS],
        "claim_types_supported": ["normal"],
        "claims_parameter_supported": False,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "authorization_response_iss_parameter_supported": True,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(ID_TOKEN_ALGS),
        "ui_locales_supported": ["zh-CN", "en"],
    }


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": _document("https://auth.example.com")}}}
}


@router.get(
    "/.well-known/openid-configuration",
    summary=Title("OpenID Connect discovery", "元数据（OpenID Connect 的路径）"),
    operation_id="read_openid_configuration",
    response_model=dict[str, Any],
    responses=_RESPONSES,
)
@router.get(
    "/.well-known/oauth-authorization-server",
    summary=Title("Authorization server metadata", "授权服务器元数据"),
    operation_id="read_metadata",
    response_model=dict[str, Any],
    responses=_RESPONSES,
)
async def metadata(settings: SettingsDep) -> JSONResponse:
    """The URLs of the keys and endpoints, and the supported features. The document is the same at both paths."""
    return JSONResponse(_document(settings.issuer), headers={"Cache-Control": f"public, max-age={JWKS_MAX_AGE}"})
