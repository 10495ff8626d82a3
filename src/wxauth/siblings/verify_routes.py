"""The routes `/v1/verify`, with which reverse proxies and gateways authorize the requests of users."""

from dataclasses import dataclass, replace
from http import HTTPStatus
from string import ascii_letters, digits, punctuation
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, quote

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from wxauth.i18n import lazy_gettext as _
from wxauth.keys.access_tokens import ResourceVerifierDep
from wxauth.settings.resources import find_resource
from wxauth.users.callers import Caller, any_caller_of, is_of_website, verified
from wxauth.web import schemas
from wxauth.web.answers import BEARER, GUARDED, Entails
from wxauth.web.dependencies import ClockDep, DatabaseDep, SettingsDep, VerifierDep
from wxauth.web.direct import Router
from wxauth_guard.errors import FieldError, InsufficientRole, InsufficientScope, InvalidRequest, InvalidToken

router = Router("siblings")

VERIFY_PATH: Final = "/v1/verify"
ROLE: Final = "role"
RESOURCE: Final = "resource"
WEBSITES: Final = "websites"
PARAMETERS: Final = frozenset({ROLE, RESOURCE, WEBSITES})
_BODY_FIELDS: Final = frozenset({b"content-length", b"content-type", b"expect", b"transfer-encoding"})
# These characters are printable ASCII without the space and without the percent sign, which begins an encoded
# character.
_SAFE_IN_HEADER: Final = (ascii_letters + digits + punctuation).replace("%", "")
_MAX_PARAMETERS: Final = 32  # roles, and at most one other parameter


def as_plain_get(scope: Scope) -> Scope:
    """Turn each request to `/v1/verify`, or to a path below it, into a GET without a body, and drop what was appended.

    Envoy, Istio and Higress use the method of the client's request, and append its path and query. The client chooses
    all three, so they must be gone before any other code reads them.
    """
    root = scope.get("root_path", "")
    path = scope["path"].removeprefix(root)
    is_below = path.startswith(f"{VERIFY_PATH}/")
    if not is_below and path != VERIFY_PATH:
        return scope
    headers = [field for field in scope["headers"] if field[0] not in _BODY_FIELDS]
    normalized = {**scope, "method": "GET", "headers": headers}
    if is_below:
        # The appended path becomes a single segment, because the route's parameter matches only one segment.
        normalized["path"] = f"{root}{VERIFY_PATH}/-"
        normalized["raw_path"] = normalized["path"].encode()
        # At `/v1/verify/`, an administrator probably meant requirements for `/v1/verify`. Therefore, they are kept, so
        # that the route refuses the request.
        if path != f"{VERIFY_PATH}/" or not _has_requirements(scope["query_string"]):
            normalized["query_string"] = b""
    return normalized


def _has_requirements(query: bytes) -> bool:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return any(name in PARAMETERS for name, _ in pairs)


def _wrong_parameter() -> InvalidRequest:
    """Return a new exception for each call, because a raised one keeps its stack frames alive."""
    message = "Accepts only the parameters 'role', which can be repeated, 'resource' and 'websites'"
    what_to_write = "the proxy must not add the client's query: in a Caddyfile, write 'uri /v1/verify?', with the '?'"
    return InvalidRequest(f"query: {message}; {what_to_write}", errors=[FieldError("query", message)])


def _no_such_resource() -> InvalidRequest:
    return InvalidRequest.of(RESOURCE, "Must be one resource of WXAUTH_RESOURCES")


async def required_roles(request: Request) -> frozenset[str]:
    """Return the roles in the query. Any unknown parameter is refused: it might be a misspelled `role`."""
    if request.scope["query_string"].count(b"&") >= _MAX_PARAMETERS:
        raise InvalidRequest.of("query", f"Must have at most {_MAX_PARAMETERS} parameters")
    if request.query_params.keys() - PARAMETERS:
        raise _wrong_parameter()
    return frozenset(request.query_params.getlist(ROLE))


async def no_requirements(request: Request) -> None:
    """Refuse requirements in the query of `/v1/verify/`. `as_plain_get` has removed those of any longer path."""
    for name in sorted(PARAMETERS):
        if name in request.query_params:
            raise InvalidRequest.of(name, f"Must be in the query of {VERIFY_PATH}, without a trailing slash")


async def required_resource(request: Request, settings: SettingsDep) -> str | None:
    """Return the resource spelled as in the settings; None for tokens of wxauth's own audience."""
    urls = request.query_params.getlist(RESOURCE)
    if not urls:
        return None
    resource = find_resource(settings.resources, urls[0])
    if resource is None or len(urls) > 1:
        raise _no_such_resource()
    return resource.resource


def _wrong_websites() -> InvalidRequest:
    return InvalidRequest.of(WEBSITES, "Must be true, once, and not beside a resource")


async def accepts_websites(request: Request) -> bool:
    """Return whether the query accepts the tokens of websites, which have a scope."""
    values = request.query_params.getlist(WEBSITES)
    # A resource's tokens always have a scope, so they need no permission.
    if values and (values != ["true"] or RESOURCE in request.query_params):
        raise _wrong_websites()
    return bool(values)


@dataclass(frozen=True, slots=True)
class ForwardedCaller:
    """The user of a token that a proxy has forwarded, as stored now."""

    caller: Caller
    scope: str  # empty for the token of an app


# A route takes the roles before the caller, so that the query is checked before the token. Otherwise, administrators
# who test a new configuration without a token would not see a mistake in the query.
RequiredRolesDep = Annotated[frozenset[str], Depends(required_roles), Entails(failures=(_wrong_parameter(),))]
NoRequirementsDep = Annotated[None, Depends(no_requirements)]
RequiredResourceDep = Annotated[str | None, Depends(required_resource), Entails(failures=(_no_such_resource(),))]
AcceptsWebsitesDep = Annotated[bool, Depends(accepts_websites), Entails(failures=(_wrong_websites(),))]


async def forwarded_caller(
    request: Request,
    resource: RequiredResourceDep,
    allows_websites: AcceptsWebsitesDep,
    verifier: VerifierDep,
    resource_verifier: ResourceVerifierDep,
    database: DatabaseDep,
    clock: ClockDep,
) -> ForwardedCaller:
    """Return the user of the token that a proxy has forwarded.

    The token of a client with a metadata document shows only the user's id, so the openid and the app id are
    empty.
    """
    principal = await verified(request, verifier if resource is None else resource_verifier, clock)
    if resource is None and not allows_websites and is_of_website(principal):
        raise InsufficientScope("this service doesn't accept the tokens of websites and agents")
    if resource not in (None, principal.claims["aud"]):
        raise InvalidToken("aud does not name this resource")
    caller = await any_caller_of(principal, database, clock)
    if not principal.openid:
        caller = replace(caller, user=caller.user.model_copy(update={"openid": "", "app_id": ""}))
    return ForwardedCaller(caller, principal.claims.get("scope", ""))


ForwardedCallerDep = Annotated[
    ForwardedCaller,
    Depends(forwarded_caller),
    Entails(failures=(*GUARDED, InsufficientScope), security=BEARER),
]


def _header(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example}


_AUTHORIZED_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    HTTPStatus.OK: {
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
            "X-Auth-Scope": _header(
                "The scopes of the token of a website or an agent, separated by spaces. Empty for the token of an app.",
                "openid profile",
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
            {
                "name": WEBSITES,
                "in": "query",
                "description": "Whether tokens with a scope, which belong to websites, are accepted, too. Not beside "
                "`resource`.",
                "schema": {"type": "string", "enum": ["true"]},
            },
        ],
    },
)
async def verify(roles: RequiredRolesDep, forwarded: ForwardedCallerDep) -> Response:
    """Authenticate a request for a reverse proxy, such as nginx (`auth_request`), Caddy or Traefik (`forward_auth`).

    Every method gets the same response. The user is in its header fields. A revoked session or a banned user is refused
    immediately. The roles are the user's current ones, not those in the token. A token with a scope is refused, unless
    `websites` or `resource` accepts it. A body is ignored. Any other parameter is refused, because if wxauth ignored a
    misspelled `role`, it would admit every user.
    """
    if not roles <= set(forwarded.caller.user.roles):
        raise InsufficientRole("the user lacks a role that this request requires")
    return _authorized(forwarded)


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
async def verify_appended(_requirements: NoRequirementsDep, forwarded: ForwardedCallerDep) -> Response:
    """Authenticate a request for a gateway that appends the client's path and query (Envoy, Istio, Higress).

    Every method gets the same response. The client chooses the query, so the query cannot require a role, a resource or
    websites, and only tokens of wxauth's own audience without a scope pass. At exactly `/v1/verify/`, these parameters
    are refused, because they belong in the query of `/v1/verify`.
    """
    return _authorized(forwarded)


def _authorized(forwarded: ForwardedCaller) -> Response:
    user = forwarded.caller.user
    return Response(
        headers={
            "X-Auth-User-Id": str(user.id),
            "X-Auth-App-Id": _in_header(user.app_id),
            "X-Auth-Openid": _in_header(user.openid),
            "X-Auth-Session-Id": str(forwarded.caller.session_id),
            "X-Auth-Roles": ",".join(user.roles),
            "X-Auth-Scope": forwarded.scope,
            "Cache-Control": "no-store",
            "Vary": "Authorization",
        }
    )


def _in_header(value: str) -> str:
    # Quoting changes an openid only if it has a space or a percent sign, because `WeChat` accepts only printable ASCII.
    return quote(value, safe=_SAFE_IN_HEADER)
