"""The routes `/v1/verify`, with which reverse proxies and gateways authorize the requests of users."""

from dataclasses import replace
from string import ascii_letters, digits, punctuation
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from wxauth.i18n import lazy_gettext as _
from wxauth.keys.issuer import ResourceVerifierDep
from wxauth.settings.resources import find_resource
from wxauth.siblings.any_request import RESOURCE, ROLE, VERIFY_PATH
from wxauth.users.callers import Caller, any_caller_of, verified
from wxauth.web import schemas
from wxauth.web.answers import BEARER, GUARDED, Entails
from wxauth.web.dependencies import ClockDep, DatabaseDep, SettingsDep, VerifierDep
from wxauth.web.direct import Router
from wxauth_guard.errors import FieldError, InsufficientRole, InvalidRequest, InvalidToken

router = Router("siblings")

# These characters are printable ASCII without the space and without the percent sign, which begins an encoded
# character.
_SAFE_IN_HEADER: Final = (ascii_letters + digits + punctuation).replace("%", "")
_MAX_PARAMETERS: Final = 32
"""The largest number of parameters in a query, which are the roles and at most one resource."""


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


async def no_requirements(request: Request) -> None:
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
NoRequirementsDep = Annotated[None, Depends(no_requirements)]
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
async def verify_appended(_requirements: NoRequirementsDep, caller: ForwardedCallerDep) -> Response:
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
