"""Routes for reverse proxies, for services that cannot use the guard, and for services that call WeChat themselves."""

from datetime import datetime
from string import ascii_letters, digits, punctuation
from typing import Annotated, Any, Final, Literal, NotRequired
from urllib.parse import parse_qsl, quote

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from wxauth.errors import (
    FieldError,
    InsufficientRole,
    InvalidRequest,
    InvalidToken,
    KeysUnavailable,
    PayloadTooLarge,
    Title,
    UnknownApp,
    WrongAppKind,
)
from wxauth.server.clients.service_clients import IntrospectingClientDep, WeChatTokenClientDep
from wxauth.server.core.database import Database
from wxauth.server.core.users import RESERVED_CLAIMS
from wxauth.server.sessions.rows import user_in_session
from wxauth.server.siblings.shared_wechat_tokens import SharedWeChatTokens
from wxauth.server.users.callers import AnyCallerDep, DeviceDep, sees_roles
from wxauth.server.web.answers import WECHAT_FAILURES, Entails
from wxauth.server.web.bodies import (
    EXAMPLE_APP_ID,
    EXAMPLE_OPENID,
    EXAMPLE_SESSION_ID,
    EXAMPLE_USER_ID,
    ShownOpenid,
    ShownSessionId,
    ShownUserId,
)
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, VerifierDep, provide
from wxauth.server.web.direct import Router
from wxauth.tokens.verifier import Verifier

_CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat", "jti", "client_id", "sid", "openid")
_CLAIMS_OF_WEBSITES: Final = ("app_id", "scope")

router = Router("siblings")

SharedWeChatTokensDep = Annotated[SharedWeChatTokens, Depends(provide(SharedWeChatTokens))]

# Printable ASCII without the space, and without the percent sign, which marks an encoded character.
_SAFE_IN_HEADER: Final = (ascii_letters + digits + punctuation).replace("%", "")
_ROLE: Final = "role"
_MAX_PARAMETERS: Final = 32
_MAX_FORM_FIELDS: Final = 128
_NO_TOKEN: Final = InvalidRequest.of("token", "Field required")


class IntrospectionAnswer(TypedDict):
    """Whether an access token is valid. If it is, its claims follow (RFC 7662, section 2.2)."""

    active: bool
    token_type: NotRequired[Annotated[Literal["Bearer"], Field(examples=["Bearer"])]]
    iss: NotRequired[Annotated[str, Field(examples=["https://auth.example.com"])]]
    sub: NotRequired[Annotated[ShownUserId, Field(description="The user's id.")]]
    aud: NotRequired[Annotated[str, Field(examples=["wxauth"])]]
    exp: NotRequired[Annotated[int, Field(examples=[1795162500])]]
    iat: NotRequired[Annotated[int, Field(examples=[1795161600])]]
    jti: NotRequired[Annotated[str, Field(examples=["01933c5e-8f1c-7a55-8c3d-6b0e9f2d4a71"])]]
    client_id: NotRequired[
        Annotated[str, Field(description="The mini-program's app_id, or a website's name.", examples=[EXAMPLE_APP_ID])]
    ]
    app_id: NotRequired[Annotated[str, Field(description="The mini-program's app_id, in a website's token only.")]]
    scope: NotRequired[Annotated[str, Field(description="The granted scopes, in a website's token only.")]]
    sid: NotRequired[Annotated[ShownSessionId, Field(description="The session's id.")]]
    openid: NotRequired[ShownOpenid]
    roles: NotRequired[
        Annotated[
            list[str], Field(description="The user's current roles. Absent if there are none.", examples=[["admin"]])
        ]
    ]
    external_id: NotRequired[Annotated[str, Field(description="The user's current external id. Absent if none.")]]


class WeChatTokenAnswer(TypedDict):
    """The token with which a service calls WeChat's server API for an app."""

    access_token: Annotated[str, Field(description="512 characters or more.", examples=["88_kVQ1PSZ6XO7..."])]
    expires_in: Annotated[int, Field(description="Seconds.", examples=[6871])]


def _wrong_parameter() -> InvalidRequest:
    """A new exception each time, because a raised exception keeps its stack frames alive."""
    message = "Takes no parameter but 'role', repeated for several"
    what_to_write = "the proxy must not add the client's query: in a Caddyfile, write 'uri /v1/verify?', with the '?'"
    return InvalidRequest(f"query: {message}; {what_to_write}", errors=[FieldError("query", message)])


async def required_roles(request: Request) -> frozenset[str]:
    """The roles that a proxy requires. Other parameters are refused: a misspelt `role` would admit everybody.

    Raises: InvalidRequest.
    """
    if request.scope["query_string"].count(b"&") >= _MAX_PARAMETERS:
        raise InvalidRequest.of("query", f"Must have at most {_MAX_PARAMETERS} parameters")
    if request.query_params.keys() - {_ROLE}:
        raise _wrong_parameter()
    return frozenset(request.query_params.getlist(_ROLE))


RequiredRolesDep = Annotated[frozenset[str], Depends(required_roles), Entails(failures=(_wrong_parameter(),))]
"""The roles that a proxy requires. Checked before the token, because administrators try a new configuration without
one."""


def _header(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example}


@router.get(
    "/v1/verify",
    summary=Title("Authorize a request (forward-auth)", "校验请求（供反向代理调用）"),
    responses={
        200: {
            "description": "The request may pass; the header says who sent it",
            "headers": {
                "X-Auth-User-Id": _header("UUIDv7.", EXAMPLE_USER_ID),
                "X-Auth-App-Id": _header("The mini-program.", EXAMPLE_APP_ID),
                "X-Auth-Openid": _header("Percent-encoded, unless it is plain ASCII without spaces.", EXAMPLE_OPENID),
                "X-Auth-Session-Id": _header("UUIDv7.", EXAMPLE_SESSION_ID),
                "X-Auth-Roles": _header("Separated by commas; empty if there are none.", "admin,editor"),
            },
        },
    },
    failures=[InsufficientRole],
    openapi_extra={
        # Documented here but read from the request: FastAPI does not refuse unknown parameters.
        "parameters": [
            {
                "name": _ROLE,
                "in": "query",
                "description": "A required role. If repeated, all of them are required.",
                "schema": {"type": "array", "items": {"type": "string"}},
            }
        ],
    },
)
async def verify(roles: RequiredRolesDep, caller: AnyCallerDep) -> Response:
    """Authenticate a request for a reverse proxy: nginx `auth_request`, Caddy and Traefik `forward_auth`.

    The user is in the answer's header fields. A revoked session or a banned user is refused at once. The roles are the
    user's current ones, not those in the token. A body is ignored. Any parameter other than `role` is refused, because
    a misspelt one would admit everybody.
    """
    user = caller.user
    if not roles <= set(user.roles):
        raise InsufficientRole("the user lacks a role that is demanded here")
    return Response(
        headers={
            "X-Auth-User-Id": str(user.id),
            "X-Auth-App-Id": _in_header(user.app_id),
            "X-Auth-Openid": _in_header(user.openid),
            "X-Auth-Session-Id": str(caller.session_id),
            "X-Auth-Roles": ",".join(user.roles),
            "Cache-Control": "no-store",
        }
    )


@router.post(
    "/v1/introspect",
    summary=Title("Introspect an access token (RFC 7662)", "检查访问令牌（RFC 7662）"),
    response_model=IntrospectionAnswer,
    openapi_extra={
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
    failures=[_NO_TOKEN, PayloadTooLarge, KeysUnavailable],
)
async def introspect(
    _: IntrospectingClientDep, request: Request, verifier: VerifierDep, database: DatabaseDep, clock: ClockDep
) -> dict[str, Any]:
    """The claims of an access token, for a client with the scope `introspect`.

    The answer is only `{"active": false}` for anything else: an expired or forged token, one of a revoked session or a
    banned user, or a refresh token. The roles are the user's current ones.
    """
    claims = await _current_claims(verifier, database, _token_in(await request.body()), now=clock())
    return {"active": False} if claims is None else {**claims, "active": True, "token_type": "Bearer"}


@router.get(
    "/v1/apps/{app_id}/access-token",
    summary=Title("Read an app's WeChat access token", "应用的微信 access_token"),
    operation_id="read_access_token",
    response_model=WeChatTokenAnswer,
    failures=[UnknownApp, WrongAppKind, *WECHAT_FAILURES],
)
async def read_wechat_token(
    client: WeChatTokenClientDep, app_id: str, shared: SharedWeChatTokensDep, device: DeviceDep
) -> dict[str, Any]:
    """The app's WeChat access token, for a client with the scope `access_token`, which then needs no app secret.

    It is WeChat's `stable_token`, the same for everybody, and is renewed some minutes before its end, while the former
    one still works. Request it before each batch of work: it comes from memory and is checked at WeChat once a minute.
    If WeChat refuses your token (40001, 40014, 42001), request it here again, never from WeChat.
    """
    token = await shared.read(client.name, app_id, ip=device.ip)
    return {"access_token": token.value.get_secret_value(), "expires_in": token.expires_in}


def _in_header(value: str) -> str:
    # The WeChat client accepts only printable ASCII as an openid. Quoting keeps anything else out of the header.
    return quote(value, safe=_SAFE_IN_HEADER)


async def _current_claims(
    verifier: Verifier, database: Database, token: str, *, now: datetime
) -> dict[str, Any] | None:
    """A token's claims, with the user's current roles; None if it is not a valid access token.

    A token signed by this service costs one indexed read, any other costs none.

    Raises: KeysUnavailable.
    """
    try:
        principal = await verifier.verify(token, now=now.timestamp())
    except InvalidToken:
        return None
    user = await user_in_session(database, session_id=principal.session_id, user_id=principal.id, now=now)
    if user is None:
        return None
    claims = {name: principal.claims[name] for name in _CLAIMS}
    claims |= {name: principal.claims[name] for name in _CLAIMS_OF_WEBSITES if name in principal.claims}
    if user.roles and sees_roles(principal):
        claims["roles"] = user.roles
    if user.external_id is not None:
        claims["external_id"] = user.external_id
    return claims | {name: value for name, value in principal.claims.items() if name not in RESERVED_CLAIMS}


def _token_in(form: bytes) -> str:
    """The field `token` of a form. Raises: InvalidRequest."""
    if form.count(b"&") >= _MAX_FORM_FIELDS:
        raise InvalidRequest.of("body", f"Must have at most {_MAX_FORM_FIELDS} fields")
    try:
        fields = parse_qsl(form.decode())
    except ValueError:
        raise InvalidRequest("the body is not UTF-8", errors=[FieldError("body", "Not UTF-8")]) from None
    tokens = [value for name, value in fields if name == "token"]
    if len(tokens) != 1:
        raise InvalidRequest.of("token", "Field given twice" if tokens else "Field required")
    return tokens[0]
