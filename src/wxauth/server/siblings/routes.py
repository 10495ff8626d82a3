"""Routes for reverse proxies, for services that cannot use the guard, and for services that call WeChat themselves."""

from string import ascii_letters, digits, punctuation
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, quote

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from wxauth.errors import (
    ClientLacksScope,
    FieldError,
    InsufficientRole,
    InvalidClient,
    InvalidRequest,
    KeysUnavailable,
    PayloadTooLarge,
    StorageUnavailable,
    UnknownApp,
)
from wxauth.server.clients.callers import SERVICE_CLIENT_SECURITY, client_with
from wxauth.server.core.services import ServicesDep
from wxauth.server.core.tables import Scope
from wxauth.server.siblings import introspection, wechat_tokens
from wxauth.server.siblings.bodies import (
    EXAMPLE_ACCESS_TOKEN,
    EXAMPLE_INTROSPECTION,
    AccessTokenAnswer,
    IntrospectionAnswer,
)
from wxauth.server.users.bodies import EXAMPLE_SESSIONS, EXAMPLE_USER
from wxauth.server.users.callers import AnyCallerDep, DeviceDep
from wxauth.server.web.answers import BEARER_SECURITY, GUARDED, WECHAT_FAILURES, answers, failures
from wxauth.server.web.direct import DirectRoute, operation_id

# Printable ASCII without the space, and without the percent sign, which marks an encoded character.
_SAFE_IN_HEADER: Final = (ascii_letters + digits + punctuation).replace("%", "")

router = APIRouter(route_class=DirectRoute, tags=["siblings"], generate_unique_id_function=operation_id)


_ROLE: Final = "role"
_MAX_PARAMETERS: Final = 32
_MAX_FORM_FIELDS: Final = 128


def _wrong_parameter() -> InvalidRequest:
    """A new one each time, because an exception that was raised keeps its frames."""
    message = "Takes no parameter but 'role', repeated for several"
    what_to_write = "the proxy must not add the client's query: in a Caddyfile, write 'uri /v1/verify?', with the '?'"
    return InvalidRequest(f"query: {message}; {what_to_write}", errors=[FieldError("query", message)])


async def demanded_roles(request: Request) -> frozenset[str]:
    """The roles that a proxy demands. A misspelt parameter is refused: it would demand no role and let everybody in.

    Raises: InvalidRequest.
    """
    if request.scope["query_string"].count(b"&") >= _MAX_PARAMETERS:
        raise InvalidRequest.of("query", f"Should have at most {_MAX_PARAMETERS} parameters")
    if request.query_params.keys() - {_ROLE}:
        raise _wrong_parameter()
    return frozenset(request.query_params.getlist(_ROLE))


DemandedRolesDep = Annotated[frozenset[str], Depends(demanded_roles)]
"""The roles that a proxy demands. Checked before the token: administrators try a new configuration without one."""


def _header(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example}


@router.get(
    "/v1/verify",
    summary="May this request pass (forward-auth)",
    response_class=Response,
    responses={
        200: {
            "description": "The request may pass; the header says who sent it",
            "headers": {
                "X-Auth-User-Id": _header("UUIDv7.", EXAMPLE_USER["id"]),
                "X-Auth-App-Id": _header("The mini-program.", EXAMPLE_USER["app_id"]),
                "X-Auth-Openid": _header(
                    "Percent-encoded, unless it is plain ASCII without spaces.", EXAMPLE_USER["openid"]
                ),
                "X-Auth-Session-Id": _header("UUIDv7.", EXAMPLE_SESSIONS["items"][0]["id"]),
                "X-Auth-Roles": _header("Separated by commas; empty if there are none.", "admin,editor"),
            },
        },
        **failures(_wrong_parameter(), *GUARDED, InsufficientRole),
    },
    openapi_extra={
        **BEARER_SECURITY,
        # Documented here, and read from the request: FastAPI does not refuse parameters that an endpoint does not have.
        "parameters": [
            {
                "name": _ROLE,
                "in": "query",
                "description": "A role to demand. If repeated, all of them are demanded.",
                "schema": {"type": "array", "items": {"type": "string"}},
            }
        ],
    },
)
async def verify(roles: DemandedRolesDep, caller: AnyCallerDep) -> Response:
    """Say whether a request may pass, and who sent it: for nginx `auth_request`, Caddy and Traefik `forward_auth`.

    A revoked session or a banned user is refused at once. The roles are the user's present ones, not those of the
    token: a role that is taken away is gone with the next request. If a proxy sends a body along, it is not read. Any
    parameter but `role` is refused, because a misspelt one would let everybody in.
    """
    user = caller.user
    if not roles <= set(user["roles"]):
        raise InsufficientRole("the user lacks a role that is demanded here")
    return Response(
        headers={
            "X-Auth-User-Id": str(user["id"]),
            "X-Auth-App-Id": _in_header(user["app_id"]),
            "X-Auth-Openid": _in_header(user["openid"]),
            "X-Auth-Session-Id": str(caller.session_id),
            "X-Auth-Roles": ",".join(user["roles"]),
            "Cache-Control": "no-store",
        }
    )


@router.post(
    "/v1/introspect",
    summary="Is this access token good (RFC 7662)",
    response_model=IntrospectionAnswer,
    responses=answers(
        EXAMPLE_INTROSPECTION,
        InvalidRequest("there are two Authorization headers", status=400),
        InvalidRequest.of("token", "Field required"),
        PayloadTooLarge,
        InvalidClient,
        ClientLacksScope,
        KeysUnavailable,
        StorageUnavailable,
    ),
    openapi_extra={
        **SERVICE_CLIENT_SECURITY,
        "requestBody": {
            "required": True,
            "content": {
                "application/x-www-form-urlencoded": {
                    "schema": {
                        "type": "object",
                        "properties": {"token": {"type": "string"}, "token_type_hint": {"type": "string"}},
                        "required": ["token"],
                    },
                    "example": {"token": "eyJ..."},
                }
            },
        },
    },
)
async def introspect(request: Request, services: ServicesDep) -> dict[str, Any]:
    """Tell a service client with the scope `introspect` what an access token says.

    The answer is `{"active": false}`, and no more, for anything but a good access token: one that is expired or forged,
    one of a revoked session or a banned user, or a refresh token. The roles are the user's present ones.
    """
    await client_with(request, Scope.INTROSPECT)
    claims = await introspection.introspect(services, _token_in(await request.body()))
    return {"active": False} if claims is None else {"active": True, "token_type": "Bearer", **claims}


@router.get(
    "/v1/apps/{app_id}/access-token",  # noqa: FAST003 - any text will do, and FastAPI would document a 422
    operation_id="read_access_token",
    summary="The app's WeChat access token",
    response_model=AccessTokenAnswer,
    responses=answers(
        EXAMPLE_ACCESS_TOKEN,
        InvalidRequest("there are two Authorization headers", status=400),
        InvalidClient,
        ClientLacksScope,
        UnknownApp,
        *WECHAT_FAILURES,
        StorageUnavailable,
    ),
    openapi_extra={
        **SERVICE_CLIENT_SECURITY,
        # Documented here, and read from the request: FastAPI would document a 422 for a parameter of the endpoint.
        "parameters": [{"name": "app_id", "in": "path", "required": True, "schema": {"type": "string"}}],
    },
)
async def read_wechat_token(request: Request, services: ServicesDep, device: DeviceDep) -> dict[str, Any]:
    """Give the app's WeChat token to a service client with the scope `access_token`, which then needs no app secret.

    The token is WeChat's `stable_token`, the same for everybody. It is renewed some minutes before its end, while the
    former one still works. Ask for it before each batch of work: it is kept here, and WeChat is asked once a minute
    whether it still holds. So a token that WeChat has replaced early is handed out for a minute at most, as long as
    WeChat answers. If WeChat refuses your token (40001, 40014, 42001), ask here again; do not ask WeChat for another.
    """
    client = await client_with(request, Scope.ACCESS_TOKEN)
    app_id = request.path_params["app_id"]
    token = await wechat_tokens.read_wechat_token(services, client.name, app_id, ip=device.ip)
    return {"access_token": token.value.get_secret_value(), "expires_in": token.expires_in}


def _in_header(value: str) -> str:
    # The WeChat client accepts only printable ASCII as an openid. Quoting keeps anything else out of the header.
    return quote(value, safe=_SAFE_IN_HEADER)


def _token_in(form: bytes) -> str:
    """The field `token` of a form. Raises: InvalidRequest."""
    if form.count(b"&") >= _MAX_FORM_FIELDS:
        raise InvalidRequest.of("body", f"Should have at most {_MAX_FORM_FIELDS} fields")
    try:
        fields = parse_qsl(form.decode())
    except ValueError:
        raise InvalidRequest("the body is not UTF-8", errors=[FieldError("body", "Not UTF-8")]) from None
    tokens = [value for name, value in fields if name == "token"]
    if len(tokens) != 1:
        raise InvalidRequest.of("token", "Field given twice" if tokens else "Field required")
    return tokens[0]
