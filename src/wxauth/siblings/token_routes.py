"""The routes that check tokens, for reverse proxies and for services that cannot use the guard."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from string import ascii_letters, digits, punctuation
from typing import Annotated, Any, Final, Literal, Required
from urllib.parse import quote

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from wxauth.clients.oauth_requests import form_parameters
from wxauth.clients.service_clients import IntrospectingClientDep, form_values
from wxauth.core.database import Database
from wxauth.errors import PayloadTooLarge
from wxauth.i18n import lazy_gettext as _
from wxauth.keys.issuer import ResourceVerifier
from wxauth.sessions.queries import READ_USER_IN_SESSION
from wxauth.settings.claims import RESERVED_CLAIMS
from wxauth.settings.resources import find_resource
from wxauth.siblings.any_request import RESOURCE, ROLE, VERIFY_PATH
from wxauth.users.callers import Caller, any_caller_of, sees_roles, verified
from wxauth.web import schemas
from wxauth.web.answers import BEARER, GUARDED, Entails
from wxauth.web.dependencies import ClockDep, DatabaseDep, SettingsDep, VerifierDep, provide
from wxauth.web.direct import Router
from wxauth_guard.errors import FieldError, InsufficientRole, InvalidRequest, InvalidToken, KeysUnavailable
from wxauth_guard.verifier import Verifier

ResourceVerifierDep = Annotated[ResourceVerifier, Depends(provide(ResourceVerifier))]
router = Router("siblings")

# These characters are printable ASCII without the space and without the percent sign, which begins an encoded
# character.
_SAFE_IN_HEADER: Final = (ascii_letters + digits + punctuation).replace("%", "")
_MAX_PARAMETERS: Final = 32
"""The largest number of parameters in a query, which are the roles and at most one resource."""


class IntrospectionAnswer(TypedDict, total=False):
    """Whether an access token is valid. If it is, its claims follow (RFC 7662, section 2.2)."""

    active: Required[bool]
    token_type: Annotated[Literal["Bearer"], Field(examples=["Bearer"])]
    iss: Annotated[str, Field(examples=["https://auth.example.com"])]
    sub: Annotated[schemas.ShownUserId, Field(description="The user's id.")]
    aud: Annotated[str, Field(examples=["wxauth"])]
    exp: Annotated[int, Field(examples=[1795162500])]
    iat: Annotated[int, Field(examples=[1795161600])]
    jti: Annotated[str, Field(examples=["01933c5e-8f1c-7a55-8c3d-6b0e9f2d4a71"])]
    client_id: Annotated[
        str,
        Field(
            description="The app's app_id, a website's name, or the URL of a client's metadata document.",
            examples=[schemas.EXAMPLE_APP_ID],
        ),
    ]
    app_id: Annotated[
        str,
        Field(description="The app's app_id, in a website's token only. Absent if the client has a metadata document."),
    ]
    auth_time: Annotated[int, Field(description="When the login was approved, in a resource's token only.")]
    scope: Annotated[str, Field(description="The granted scopes, in a website's token only.")]
    sid: Annotated[schemas.ShownSessionId, Field(description="The session's id.")]
    openid: Annotated[
        schemas.ShownOpenid, Field(description="The user's openid. Absent if the client has a metadata document.")
    ]
    roles: Annotated[
        list[str],
        Field(
            description="The user's current roles. Absent if there are none, or if the token may not show them.",
            examples=[["admin"]],
        ),
    ]
    external_id: Annotated[
        str,
        Field(
            description="The user's current external_id. Absent if there is none, or if the client has a metadata "
            "document."
        ),
    ]


def _wrong_parameter() -> InvalidRequest:
    """Return the error for an unknown parameter.

    Each call returns a new exception, because a raised exception keeps its stack frames alive.
    """
    message = "Accepts only the parameters 'role', which can be repeated, and 'resource'"
    what_to_write = "the proxy must not add the client's query: in a Caddyfile, write 'uri /v1/verify?', with the '?'"
    return InvalidRequest(f"query: {message}; {what_to_write}", errors=[FieldError("query", message)])


def _no_such_resource() -> InvalidRequest:
    """Return the error for an unknown resource, or for several resources.

    As in `_wrong_parameter`, each call returns a new exception.
    """
    return InvalidRequest.of(RESOURCE, "Must be one resource of WXAUTH_RESOURCES")


def _no_token() -> InvalidRequest:
    """Return the error for a form without a token. As in `_wrong_parameter`, each call returns a new exception."""
    return InvalidRequest.of("token", "Field required")


async def required_roles(request: Request) -> frozenset[str]:
    """Return the roles that a proxy requires.

    The query must contain only `role` and `resource`. If wxauth ignored a misspelled `role`, it would admit every user.

    Raises: InvalidRequest, if there is another parameter, or if there are too many parameters.
    """
    if request.scope["query_string"].count(b"&") >= _MAX_PARAMETERS:
        raise InvalidRequest.of("query", f"Must have at most {_MAX_PARAMETERS} parameters")
    if request.query_params.keys() - {ROLE, RESOURCE}:
        raise _wrong_parameter()
    return frozenset(request.query_params.getlist(ROLE))


async def no_demands(request: Request) -> None:
    """Check that a request to `/v1/verify/` requires no role or resource.

    `AnyRequest` has removed the query of any other request below `VERIFY_PATH`.

    Raises: InvalidRequest, if the request requires one.
    """
    for name in (ROLE, RESOURCE):
        if name in request.query_params:
            raise InvalidRequest.of(name, f"Must be in the query of {VERIFY_PATH}, without a trailing slash")


async def required_resource(request: Request, settings: SettingsDep) -> str | None:
    """Return the resource whose tokens a proxy requires, spelled as in the settings.

    Return None if the proxy requires tokens of wxauth's own audience.

    Raises: InvalidRequest, if the resource is unknown, or if there are several resources.
    """
    urls = request.query_params.getlist(RESOURCE)
    if not urls:
        return None
    resource = find_resource(settings.resources, urls[0])
    if resource is None or len(urls) > 1:
        raise _no_such_resource()
    return resource.resource


RequiredRolesDep = Annotated[frozenset[str], Depends(required_roles), Entails(failures=(_wrong_parameter(),))]
"""The roles that a proxy requires.

A route declares this parameter before the caller, so that `DirectRoute` checks the query before the token. In the
reverse order, administrators who test a new configuration without a token would not see a mistake in the query.
"""
NoDemandsDep = Annotated[None, Depends(no_demands)]
RequiredResourceDep = Annotated[str | None, Depends(required_resource), Entails(failures=(_no_such_resource(),))]


async def forwarded_caller(
    request: Request,
    resource: RequiredResourceDep,
    verifier: VerifierDep,
    resource_verifier: ResourceVerifierDep,
    database: DatabaseDep,
    clock: ClockDep,
) -> Caller:
    """Return the user of the token that a proxy has forwarded, as stored now.

    If the token contains no openid, the openid and the app id are empty. Such a token belongs to a client with a
    metadata document, and shows nothing of the user but the id.

    Raises: the errors of `verified` and `any_caller_of`; InvalidToken, if the token is not for the required resource.
    """
    principal = await verified(request, verifier if resource is None else resource_verifier, clock)
    if resource not in (None, principal.claims["aud"]):
        raise InvalidToken("aud does not name this resource")
    caller = await any_caller_of(principal, database, clock)
    if principal.openid:
        return caller
    return replace(caller, user=caller.user.model_copy(update={"openid": "", "app_id": ""}))


ForwardedCallerDep = Annotated[Caller, Depends(forwarded_caller), Entails(failures=GUARDED, security=BEARER)]


def _header(description: str, example: str) -> dict[str, Any]:
    """Return the OpenAPI description of a header field."""
    return {"description": description, "schema": {"type": "string"}, "example": example}


_AUTHORIZED_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The request is authorized, and the headers identify the user",
        "headers": {
            "X-Auth-User-Id": _header("The user's id (UUIDv7).", schemas.EXAMPLE_USER_ID),
            "X-Auth-App-Id": _header(
                "The app's app_id. Empty if the client has a metadata document.", schemas.EXAMPLE_APP_ID
            ),
            "X-Auth-Openid": _header(
                "The user's openid, percent-encoded unless it is printable ASCII without spaces and percent signs. "
                "Empty if the client has a metadata document.",
                schemas.EXAMPLE_OPENID,
            ),
            "X-Auth-Session-Id": _header("The session's id (UUIDv7).", schemas.EXAMPLE_SESSION_ID),
            "X-Auth-Roles": _header(
                "The user's current roles, separated by commas. Empty if there are none, or if the token may not show "
                "them.",
                "admin,editor",
            ),
        },
    },
}


@router.get(
    VERIFY_PATH,
    summary=_("Authorize a request (forward-auth)"),
    responses=_AUTHORIZED_RESPONSES,
    failures=[InsufficientRole],
    openapi_extra={
        # These parameters are documented here but read from the request, because FastAPI does not refuse unknown
        # parameters.
        "parameters": [
            {
                "name": ROLE,
                "in": "query",
                "description": "A required role. If you repeat the parameter, all roles are required.",
                "schema": {"type": "array", "items": {"type": "string"}},
            },
            {
                "name": RESOURCE,
                "in": "query",
                "description": "The only resource whose tokens are accepted. Absent: only tokens for wxauth's audience "
                "are accepted.",
                "schema": {"type": "string"},
            },
        ],
    },
)
async def verify(roles: RequiredRolesDep, caller: ForwardedCallerDep) -> Response:
    """Authenticate a request for a reverse proxy, such as nginx (`auth_request`), Caddy or Traefik (`forward_auth`).

    Every method gets the same response. The user is in its header fields. A revoked session or a banned user is refused
    immediately. The roles are the user's current ones, not those in the token. A body is ignored. Any parameter other
    than `role` and `resource` is refused, because if wxauth ignored a misspelled `role`, it would admit every user.
    """
    if not roles <= set(caller.user.roles):
        raise InsufficientRole("the user lacks a role that this request requires")
    return _authorized(caller)


@router.get(
    VERIFY_PATH + "/{path}",
    summary=_("Authorize a request whose path the proxy appends (forward-auth)"),
    operation_id="verify_appended",
    responses=_AUTHORIZED_RESPONSES,
    openapi_extra={
        "parameters": [
            {
                "name": "path",
                "in": "path",
                "required": True,
                "description": "The path of the client's request. wxauth ignores the path and the query.",
                "schema": {"type": "string"},
            }
        ]
    },
)
async def verify_appended(_demands: NoDemandsDep, caller: ForwardedCallerDep) -> Response:
    """Authenticate a request for a gateway that appends the client's path and query (Envoy, Istio, Higress).

    Every method gets the same response. The client chooses the query, so the query cannot require a role or a resource,
    and only tokens of wxauth's own audience pass. At exactly `/v1/verify/`, `role` and `resource` are refused, because
    they belong in the query of `/v1/verify`.
    """
    return _authorized(caller)


def _authorized(caller: Caller) -> Response:
    """Return the response whose header fields identify the user to the service behind the proxy."""
    user = caller.user
    return Response(
        headers={
            "X-Auth-User-Id": str(user.id),
            "X-Auth-App-Id": _in_header(user.app_id),
            "X-Auth-Openid": _in_header(user.openid),
            "X-Auth-Session-Id": str(caller.session_id),
            "X-Auth-Roles": ",".join(user.roles),
            "Cache-Control": "no-store",
            "Vary": "Authorization",
        }
    )


def _in_header(value: str) -> str:
    """Return a value for a header field. All characters that are not safe in a header field are percent-encoded.

    An openid changes only if it contains a space or a percent sign, because the class `WeChat` accepts only printable
    ASCII as an openid.
    """
    return quote(value, safe=_SAFE_IN_HEADER)


@router.post(
    "/v1/introspect",
    summary=_("Introspect an access token (RFC 7662)"),
    response_model=IntrospectionAnswer,
    openapi_extra=form_parameters(
        "token_type_hint",
        "client_id",
        "client_secret",
        required=["token"],
        token="eyJ...",  # noqa: S106 (the example in the documentation is no secret)
    ),
    failures=[_no_token(), PayloadTooLarge, KeysUnavailable],
)
async def introspect(
    client: IntrospectingClientDep,
    request: Request,
    verifier: VerifierDep,
    resource_verifier: ResourceVerifierDep,
    database: DatabaseDep,
    clock: ClockDep,
) -> dict[str, Any]:
    """Return the claims of an access token, for a client with the scope `introspect`.

    For anything else, such as an expired or forged token, a token of a revoked session or a banned user, or a refresh
    token, the response is only `{"active": false}`. `roles` and `external_id` have the user's current values. A client
    that was added with resources sees only tokens for these resources. Any other client sees only tokens that are for
    no resource.
    """
    token = await _token_in(request)
    verifier_for_client = resource_verifier if client.resources else verifier
    claims = await _current_claims(verifier_for_client, database, token, resources=client.resources, now=clock())
    return {"active": False} if claims is None else {**claims, "active": True, "token_type": "Bearer"}


async def _current_claims(
    verifier: Verifier, database: Database, token: str, *, resources: Collection[str], now: datetime
) -> dict[str, Any] | None:
    """Return a token's claims, with the user's current roles and external id if the token may show them.

    Return None if the token is invalid, if its session has ended, if its user is banned or erased, if its website was
    removed, or if it is for none of the resources. Without `resources`, the verifier alone checks the audience.

    For a valid token of this service, the function queries the database once. For any other token, it sends no query.

    Raises: KeysUnavailable.
    """
    try:
        principal = await verifier.verify(token, now=now.timestamp())
    except InvalidToken:
        return None
    user = await database.row(READ_USER_IN_SESSION, session_id=principal.session_id, user_id=principal.id, now=now)
    if user is None or (resources and principal.claims["aud"] not in resources):
        return None
    # The claims `roles` and `external_id` are added below with their current values.
    copied_names = IntrospectionAnswer.__annotations__.keys() - {"roles", "external_id"}
    claims = {name: value for name, value in principal.claims.items() if name in copied_names}
    if user.roles and sees_roles(principal):
        claims["roles"] = user.roles
    # The token of a client with a metadata document contains no openid, and shows nothing of the user but the id.
    if user.external_id is not None and principal.openid:
        claims["external_id"] = user.external_id
    operators_claims = {name: value for name, value in principal.claims.items() if name not in RESERVED_CLAIMS}
    return claims | operators_claims


async def _token_in(request: Request) -> str:
    """Return the field `token` of a form.

    Raises: InvalidRequest, if the field is missing or repeated; the errors of `form_values`.
    """
    tokens = await form_values(request, "token")
    if not tokens:
        raise _no_token()
    if len(tokens) > 1:
        raise InvalidRequest.of("token", "Field given twice")
    return tokens[0]
