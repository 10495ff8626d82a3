"""The metadata of wxauth as an authorization server and OpenID provider (RFC 8414, OpenID Connect Discovery)."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import JSONResponse

from wxauth.clients.assertions import PRIVATE_KEY_JWT, SIGNING_ALGS
from wxauth.clients.id_tokens import PROTOCOL_CLAIMS
from wxauth.clients.models import CLAIMS, ID_TOKEN_ALGS, SITE_SCOPE_NAMES
from wxauth.i18n import languages, lazy_gettext as _
from wxauth.keys.models import JWKS_MAX_AGE_SECONDS, JWKS_PATH
from wxauth.settings.resources import Resource
from wxauth.siblings.introspection_routes import INTROSPECTION_PATH
from wxauth.sites.oauth_routes import (
    DEVICE_PATH,
    END_SESSION_PATH,
    OPENID_METADATA_PATH,
    REVOKE_PATH,
    TOKEN_PATH,
    USERINFO_PATH,
)
from wxauth.sites.requests import CHALLENGE_METHOD, RESPONSE_MODES, RESPONSE_TYPE
from wxauth.sites.responses import AUTHORIZE_PATH
from wxauth.sites.tokens import GRANT_TYPES
from wxauth.web.dependencies import SettingsDep
from wxauth.web.direct import DirectRoute, Router
from wxauth_guard.issuer import METADATA_PATH

_SECRET_METHODS: Final = ["client_secret_basic", "client_secret_post"]
router = Router("keys")


def _metadata(issuer: str, resources: Iterable[Resource] = (), *, allows_documents: bool = False) -> dict[str, Any]:
    # Several resources can have the same scope. Unlike a set, a dict keeps the order of the names.
    scopes = dict.fromkeys(SITE_SCOPE_NAMES)
    for resource in resources:
        scopes.update(dict.fromkeys(resource.scopes))
    methods = [*_SECRET_METHODS, "none"]
    document_features: dict[str, Any] = {}
    if allows_documents:
        methods.append(PRIVATE_KEY_JWT)
        document_features = {
            "client_id_metadata_document_supported": True,
            "token_endpoint_auth_signing_alg_values_supported": list(SIGNING_ALGS),
            "revocation_endpoint_auth_signing_alg_values_supported": list(SIGNING_ALGS),
        }
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}{JWKS_PATH}",
        "authorization_endpoint": f"{issuer}{AUTHORIZE_PATH}",
        "token_endpoint": f"{issuer}{TOKEN_PATH}",
        "token_endpoint_auth_methods_supported": methods,
        "device_authorization_endpoint": f"{issuer}{DEVICE_PATH}",
        "userinfo_endpoint": f"{issuer}{USERINFO_PATH}",
        "revocation_endpoint": f"{issuer}{REVOKE_PATH}",
        "revocation_endpoint_auth_methods_supported": methods,
        "introspection_endpoint": f"{issuer}{INTROSPECTION_PATH}",
        "introspection_endpoint_auth_methods_supported": _SECRET_METHODS,
        "end_session_endpoint": f"{issuer}{END_SESSION_PATH}",
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "response_types_supported": [RESPONSE_TYPE],
        "response_modes_supported": list(RESPONSE_MODES),
        "grant_types_supported": list(GRANT_TYPES),
        "code_challenge_methods_supported": [CHALLENGE_METHOD],
        "scopes_supported": list(scopes),
        "claims_supported": [*PROTOCOL_CLAIMS, *CLAIMS],
        "claim_types_supported": ["normal"],
        "claims_parameter_supported": False,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "authorization_response_iss_parameter_supported": True,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(ID_TOKEN_ALGS),
        "ui_locales_supported": languages()[::-1],  # Chinese, the last language, first: most users of WeChat read it
        **document_features,
    }


_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    HTTPStatus.OK: {"content": {"application/json": {"example": _metadata("https://auth.example.com")}}}
}


@router.get(
    OPENID_METADATA_PATH,
    summary=_("OpenID Connect metadata"),
    operation_id="read_openid_configuration",
    response_model=dict[str, Any],
    responses=_RESPONSES,
)
@router.get(
    METADATA_PATH,
    summary=_("Authorization server metadata"),
    operation_id="read_metadata",
    response_model=dict[str, Any],
    responses=_RESPONSES,
)
async def metadata(settings: SettingsDep) -> JSONResponse:
    """Return the URLs of the keys and endpoints, and the supported features.

    `/.well-known/openid-configuration` and `/.well-known/oauth-authorization-server` return the same document.
    """
    document = _metadata(settings.issuer, settings.resources, allows_documents=bool(settings.client_documents))
    return JSONResponse(document, headers={"Cache-Control": f"public, max-age={JWKS_MAX_AGE_SECONDS}"})


def metadata_at_root(path: str) -> list[DirectRoute]:
    """Return the additional metadata routes of an issuer whose URL has this path.

    The path comes after the well-known path, which begins at the host's root (RFC 8414, section 3.1).
    """
    at_root = Router("keys")
    for method in ("GET", "HEAD"):
        at_root.hidden(METADATA_PATH + path, method=method)(metadata)
    return at_root.routes
