"""For reverse proxies, for services that cannot use the guard, and for those that call WeChat themselves."""

from string import ascii_letters, digits, punctuation
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, quote

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from wxauth.core.services import ServicesDep
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
from wxauth.people.bodies import EXAMPLE_SESSIONS, EXAMPLE_USER
from wxauth.people.callers import AnyCallerDep, DeviceDep
from wxauth.siblings import clients, wechat_tokens
from wxauth.siblings.bodies import (
    EXAMPLE_ACCESS_TOKEN,
    EXAMPLE_INTROSPECTION,
    AccessTokenAnswer,
    IntrospectionAnswer,
)
from wxauth.siblings.callers import SERVICE_CLIENT_SECURITY, client_with
from wxauth.siblings.clients import Scope
from wxauth.web.answers import BEARER_SECURITY, GUARDED, WECHAT_FAILURES, answers, failures
from wxauth.web.direct import DirectRoute, operation_id

# All that is printable in ASCII but the space and, so that what is encoded can be told, the percent sign.
_SAFE_IN_HEADER: Final = (ascii_letters + digits + punctuation).replace("%", "")

router = APIRouter(route_class=DirectRoute, tags=["siblings"], generate_unique_id_function=operation_id)


_ROLE: Final = "role"
_WRONG_PARAMETER: Final = InvalidRequest.of("query", "Takes no parameter but 'role', repeated for several")


async def demanded_roles(request: Request) -> frozenset[str]:
    """The roles that a proxy demands. A parameter that is misspelt would demand none, and let everybody in.

    Raises: InvalidRequest.
    """
    if request.query_params.keys() - {_ROLE}:
        raise _WRONG_PARAMETER
    return frozenset(request.query_params.getlist(_ROLE))


DemandedRolesDep = Annotated[frozenset[str], Depends(demanded_roles)]
"""The roles that a proxy demands. Looked at first: whoever writes its configuration tries it without a token."""


def _header(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example}


@router.get(
    "/v1/verify",
    summary="May this request pass (forward-auth)",
    response_class=Response,
    responses={
        200: {
            "description": "It may; who sent it is in the header",
            "headers": {
                "X-Auth-User-Id": _header("UUIDv7.", EXAMPLE_USER["id"]),
                "X-Auth-App-Id": _header("The mini-program.", EXAMPLE_USER["app_id"]),
                "X-Auth-Openid": _header(
                    "Percent-encoded, should it not be plain ASCII without spaces.", EXAMPLE_USER["openid"]
                ),
                "X-Auth-Session-Id": _header("UUIDv7.", EXAMPLE_SESSIONS["items"][0]["id"]),
                "X-Auth-Roles": _header("With commas between; empty where there are none.", "admin,editor"),
            },
        },
        **failures(_WRONG_PARAMETER, *GUARDED, InsufficientRole),
    },
    openapi_extra={
        **BEARER_SECURITY,
        # Not a parameter of the endpoint: FastAPI would not refuse the others.
        "parameters": [
            {
                "name": _ROLE,
                "in": "query",
                "description": "A role to demand; repeated, all of them.",
                "schema": {"type": "array", "items": {"type": "string"}},
            }
        ],
    },
)
async def verify(roles: DemandedRolesDep, caller: AnyCallerDep) -> Response:
    """Say whether a request may pass, and whose it is: nginx `auth_request`, Caddy and Traefik `forward_auth`.

    A revoked session or a banned user is refused at once. The roles are those that the user has now, not those of
    the token: one taken away is gone with the next request. The body, if a proxy sends one along, is not read. Any
    parameter but `role` is refused, for a misspelt one would let everybody in.
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
    """What an access token says, asked by a service client with the scope `introspect`.

    `{"active": false}`, and no more, for all that is not a good access token by now: expired, forged, of a
    revoked session or a banned user, or a refresh token. The roles are those that the user has now.
    """
    await client_with(request, Scope.INTROSPECT)
    claims = await clients.introspect(services, _token_in(await request.body()))
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
        # Not a parameter of the endpoint either.
        "parameters": [{"name": "app_id", "in": "path", "required": True, "schema": {"type": "string"}}],
    },
)
async def read_wechat_token(request: Request, services: ServicesDep, device: DeviceDep) -> dict[str, Any]:
    """What a service client with the scope `access_token` calls WeChat with, so that it never holds the app secret.

    It is WeChat's `stable_token`, the same for everybody, renewed some minutes before its end while the former one
    still works. Ask for each batch of work: it is kept here, and WeChat is asked once a minute whether it is still
    the one. So a token that WeChat has replaced before its end is handed out for a minute at most, as long as WeChat
    answers. Where WeChat refuses yours (40001, 40014, 42001), ask again; do not ask WeChat for another one.
    """
    client = await client_with(request, Scope.ACCESS_TOKEN)
    app_id = request.path_params["app_id"]
    token = await wechat_tokens.read_wechat_token(services, client.name, app_id, ip=device.ip)
    return {"access_token": token.value.get_secret_value(), "expires_in": token.expires_in}


def _in_header(value: str) -> str:
    # WeChat's openids are printable ASCII, the client sees to it; nothing else may ever reach a header as it is.
    return quote(value, safe=_SAFE_IN_HEADER)


def _token_in(form: bytes) -> str:
    """The field `token` of a form. Raises: InvalidRequest."""
    try:
        fields = parse_qsl(form.decode())
    except ValueError:
        raise InvalidRequest("the body is not UTF-8", errors=[FieldError("body", "Not UTF-8")]) from None
    tokens = [value for name, value in fields if name == "token"]
    if len(tokens) != 1:
        raise InvalidRequest.of("token", "Field given twice" if tokens else "Field required")
    return tokens[0]
