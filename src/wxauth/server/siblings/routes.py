"""Routes for reverse proxies, for services that cannot use the guard, and for services that look users up."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from string import ascii_letters, digits, punctuation
from typing import Annotated, Any, Final, Literal, NotRequired, Required, Self
from urllib.parse import parse_qsl, quote
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, Field, StringConstraints, model_validator
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from wxauth.errors import (
    ExternalIdTaken,
    FieldError,
    InsufficientRole,
    InvalidRequest,
    InvalidToken,
    KeysUnavailable,
    NotFound,
    PayloadTooLarge,
    Title,
)
from wxauth.server.clients.models import Scope
from wxauth.server.clients.oauth_requests import form_parameters
from wxauth.server.clients.service_clients import (
    AttributesClientDep,
    IntrospectingClientDep,
    ModeratingClientDep,
    UsersClientDep,
    lacking,
)
from wxauth.server.core.claims import RESERVED_CLAIMS
from wxauth.server.core.database import Database
from wxauth.server.core.resources import find_resource
from wxauth.server.core.trail import Actor
from wxauth.server.core.users import UserStatus
from wxauth.server.keys.issuer import ResourceVerifier
from wxauth.server.sessions.rows import READ_USER_IN_SESSION
from wxauth.server.siblings.rows import UserForSiblings, look_up
from wxauth.server.users.admin import UserChange, change_user, end_sessions_of, set_external_id
from wxauth.server.users.admin_routes import NO_SUCH_USER
from wxauth.server.users.attributes import AttributesRequest
from wxauth.server.users.bodies import (
    DocumentVersion,
    FormerExternalIds,
    OperatorsFields,
    Reason,
    SharedFields,
    shown_in,
)
from wxauth.server.users.callers import Caller, DeviceDep, any_caller_of, sees_roles, verified
from wxauth.server.users.ids import ExternalId
from wxauth.server.users.search_rows import IdentityJson
from wxauth.server.web.answers import BEARER, GUARDED, Entails
from wxauth.server.web.bodies import (
    EXAMPLE_APP_ID,
    EXAMPLE_OPENID,
    EXAMPLE_SESSION_ID,
    EXAMPLE_USER_ID,
    TEXT,
    ShownOpenid,
    ShownSessionId,
    ShownUserId,
    Time,
    body_like,
)
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, SettingsDep, VerifierDep, provide
from wxauth.server.web.direct import Router
from wxauth.tokens.verifier import Verifier

ResourceVerifierDep = Annotated[ResourceVerifier, Depends(provide(ResourceVerifier))]
router = Router("siblings")

# Printable ASCII without the space, and without the percent sign, which marks an encoded character.
_SAFE_IN_HEADER: Final = (ascii_letters + digits + punctuation).replace("%", "")
_ROLE: Final = "role"
_RESOURCE: Final = "resource"
_MAX_PARAMETERS: Final = 32
_MAX_FORM_FIELDS: Final = 128
_NO_TOKEN: Final = InvalidRequest.of("token", "Field required")

LOOKED_UP_AT_ONCE: Final = 200

ShortText = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=TEXT)]
"""An openid, an app id, an external id or a unionid."""
_NO_SUCH_RESOURCE: Final = InvalidRequest.of(_RESOURCE, "Must be one resource of WXAUTH_RESOURCES")
_IS_STAFF: Final = InsufficientRole("this user is an administrator or other staff: this needs the role admin")


class IntrospectionAnswer(TypedDict, total=False):
    """Whether an access token is valid. If it is, its claims follow (RFC 7662, section 2.2)."""

    active: Required[bool]
    token_type: Annotated[Literal["Bearer"], Field(examples=["Bearer"])]
    iss: Annotated[str, Field(examples=["https://auth.example.com"])]
    sub: Annotated[ShownUserId, Field(description="The user's id.")]
    aud: Annotated[str, Field(examples=["wxauth"])]
    exp: Annotated[int, Field(examples=[1795162500])]
    iat: Annotated[int, Field(examples=[1795161600])]
    jti: Annotated[str, Field(examples=["01933c5e-8f1c-7a55-8c3d-6b0e9f2d4a71"])]
    client_id: Annotated[
        str, Field(description="The mini-program's app_id, or a website's name.", examples=[EXAMPLE_APP_ID])
    ]
    app_id: Annotated[str, Field(description="The mini-program's app_id, in a website's token only.")]
    auth_time: Annotated[int, Field(description="When the login was approved, in a resource's token only.")]
    scope: Annotated[str, Field(description="The granted scopes, in a website's token only.")]
    sid: Annotated[ShownSessionId, Field(description="The session's id.")]
    openid: ShownOpenid
    roles: Annotated[
        list[str], Field(description="The user's current roles. Absent if there are none.", examples=[["admin"]])
    ]
    external_id: Annotated[str, Field(description="The user's current external id. Absent if none.")]


def _wrong_parameter() -> InvalidRequest:
    """A new exception each time, because a raised exception keeps its stack frames alive."""
    message = "Takes no parameter but 'role', repeated for several, and 'resource'"
    what_to_write = "the proxy must not add the client's query: in a Caddyfile, write 'uri /v1/verify?', with the '?'"
    return InvalidRequest(f"query: {message}; {what_to_write}", errors=[FieldError("query", message)])


async def required_roles(request: Request) -> frozenset[str]:
    """The roles that a proxy requires. Other parameters are refused: a misspelt `role` would admit everybody.

    Raises: InvalidRequest.
    """
    if request.scope["query_string"].count(b"&") >= _MAX_PARAMETERS:
        raise InvalidRequest.of("query", f"Must have at most {_MAX_PARAMETERS} parameters")
    if request.query_params.keys() - {_ROLE, _RESOURCE}:
        raise _wrong_parameter()
    return frozenset(request.query_params.getlist(_ROLE))


async def required_resource(request: Request, settings: SettingsDep) -> str | None:
    """The resource whose tokens a proxy requires, as the settings spell it; None for tokens of wxauth's own audience.

    Raises: InvalidRequest.
    """
    given = request.query_params.getlist(_RESOURCE)
    if not given:
        return None
    found = find_resource(settings.resources, given[0])
    if found is None or len(given) > 1:
        raise InvalidRequest.of(*_NO_SUCH_RESOURCE.errors[0])
    return found.resource


RequiredRolesDep = Annotated[frozenset[str], Depends(required_roles), Entails(failures=(_wrong_parameter(),))]
"""The roles that a proxy requires. Checked before the token, because administrators try a new configuration without
one."""
RequiredResourceDep = Annotated[str | None, Depends(required_resource), Entails(failures=(_NO_SUCH_RESOURCE,))]


async def forwarded_caller(
    request: Request,
    resource: RequiredResourceDep,
    verifier: VerifierDep,
    resource_verifier: ResourceVerifierDep,
    database: DatabaseDep,
    clock: ClockDep,
) -> Caller:
    """The user of the token that a proxy has forwarded, as stored now; without openid and app where the token has none.

    Raises: as `verified` and `read_caller`; InvalidToken, if the token is not for the required resource.
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
            },
            {
                "name": _RESOURCE,
                "in": "query",
                "description": "The resource whose tokens alone may pass. Absent: only tokens of wxauth's audience.",
                "schema": {"type": "string"},
            },
        ],
    },
)
async def verify(roles: RequiredRolesDep, caller: ForwardedCallerDep) -> Response:
    """Authenticate a request for a reverse proxy: nginx `auth_request`, Caddy and Traefik `forward_auth`.

    The user is in the answer's header fields. A revoked session or a banned user is refused at once. The roles are the
    user's current ones, not those in the token. A body is ignored. Any parameter other than `role` and `resource` is
    refused, because a misspelt one would admit everybody.
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
            "Vary": "Authorization",
        }
    )


@router.post(
    "/v1/introspect",
    summary=Title("Introspect an access token (RFC 7662)", "检查访问令牌（RFC 7662）"),
    response_model=IntrospectionAnswer,
    openapi_extra=form_parameters("token_type_hint", required=["token"], **{"token": "eyJ..."}),
    failures=[_NO_TOKEN, PayloadTooLarge, KeysUnavailable],
)
async def introspect(
    client: IntrospectingClientDep,
    request: Request,
    verifier: VerifierDep,
    resource_verifier: ResourceVerifierDep,
    database: DatabaseDep,
    clock: ClockDep,
) -> dict[str, Any]:
    """The claims of an access token, for a client with the scope `introspect`.

    The answer is only `{"active": false}` for anything else: an expired or forged token, one of a revoked session or a
    banned user, or a refresh token. The roles are the user's current ones. A client that was added with resources sees
    the tokens of these alone, any other client those of no resource.
    """
    chosen, token = resource_verifier if client.resources else verifier, _token_in(await request.body())
    claims = await _current_claims(chosen, database, token, now=clock())
    if client.resources and claims is not None and claims["aud"] not in client.resources:
        claims = None
    return {"active": False} if claims is None else {**claims, "active": True, "token_type": "Bearer"}


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
    user = await database.row(READ_USER_IN_SESSION, session_id=principal.session_id, user_id=principal.id, now=now)
    if user is None:
        return None
    shown = IntrospectionAnswer.__annotations__.keys() - {"roles", "external_id"}  # which are the user's current ones
    claims = {name: value for name, value in principal.claims.items() if name in shown}
    if user.roles and sees_roles(principal):
        claims["roles"] = user.roles
    if user.external_id is not None and principal.openid:
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


class LookupOpenid(BaseModel):
    """One openid in one app."""

    app_id: ShortText
    openid: ShortText


class LookupRequest(BaseModel):
    """Which users to look up."""

    model_config = body_like({"ids": [EXAMPLE_USER_ID]})

    ids: list[UUID] | None = Field(default=None, max_length=LOOKED_UP_AT_ONCE)
    openids: list[LookupOpenid] | None = Field(default=None, max_length=LOOKED_UP_AT_ONCE)
    external_ids: list[ShortText] | None = Field(default=None, max_length=LOOKED_UP_AT_ONCE)
    unionids: list[ShortText] | None = Field(
        default=None, max_length=LOOKED_UP_AT_ONCE, description="Only with the scope `unionids`."
    )

    @model_validator(mode="after")
    def _has_allowed_number(self) -> Self:
        # Unknown fields are ignored. Without this check, a misspelt name would look as if all these users had been
        # erased.
        asked = [self.ids, self.openids, self.external_ids, self.unionids]
        if all(some is None for some in asked):
            raise ValueError("Must have ids, openids, external_ids or unionids")
        if sum(len(some or ()) for some in asked) > LOOKED_UP_AT_ONCE:
            raise ValueError(f"Must have at most {LOOKED_UP_AT_ONCE} of all kinds together")
        return self


class ExternalIdRequest(BaseModel):
    """The id that a user has in your own system."""

    model_config = body_like({"external_id": "10023"})

    external_id: ExternalId | None = Field(description="Unique among users. null removes it.")


class BanRequest(BaseModel):
    """A ban. It replaces an earlier one."""

    model_config = body_like({"reason": "paid with a stolen card", "until": "2026-11-27T18:00:00+08:00"})

    reason: Reason | None = Field(default=None, description="For staff only.")
    until: Time | None = Field(default=None, description="When the ban ends automatically, with an offset.")


class UserForSiblingsAnswer(SharedFields, OperatorsFields, FormerExternalIds):
    """A user as siblings see them."""

    id: Annotated[ShownUserId, Field(description="UUIDv7. It differs from the requested id if that one was merged.")]
    former_ids: Annotated[
        list[UUID],
        Field(
            description="The ids merged into this user, the first merge first.",
            examples=[["01933c5a-02b4-7f0e-8d21-7a5c9e1f3b86"]],
        ),
    ]
    consents: Annotated[list[DocumentVersion], Field(description="The user's current consents.")]
    unionids: NotRequired[
        Annotated[
            list[str],
            Field(
                description="The unionids by which the user is found. Only with the scope `unionids`.",
                examples=[["oTmHYjg7xLa9Yp4Zt2Vq8nCwRk1E"]],
            ),
        ]
    ]
    phone: NotRequired[
        Annotated[str | None, Field(description="E.164. Only with the scope `phones`.", examples=["+8613800138000"])]
    ]
    phone_verified: NotRequired[
        Annotated[
            bool | None,
            Field(
                description="Whether the phone button verified the number; null without a number. Only with `phones`.",
                examples=[True],
            ),
        ]
    ]


class LookupAnswer(BaseModel):
    """The users found, each once, in the order of the request."""

    items: list[UserForSiblingsAnswer]


def user_for_siblings(user: UserForSiblings, scopes: Collection[str]) -> UserForSiblingsAnswer:
    """A user as a client with these scopes sees them."""
    answer: UserForSiblingsAnswer = shown_in(UserForSiblingsAnswer, user)
    answer["consents"] = [
        {"document": document, "version": version} for document, version in sorted((user.consents or {}).items())
    ]
    if user.former_external_ids:
        answer["former_external_ids"] = user.former_external_ids
    if Scope.UNIONIDS in scopes:
        answer["unionids"] = user.unionids
    if Scope.PHONES in scopes:
        answer["phone"] = user.phone
        answer["phone_verified"] = user.phone_verified
    return answer


@router.get("/v1/users/{user_id}", summary=Title("Look up a user", "查询用户"), failures=[NO_SUCH_USER])
async def look_user_up(client: UsersClientDep, database: DatabaseDep, user_id: UUID) -> UserForSiblingsAnswer:
    """A user, for a service client with the scope `users`; with the phone number if it also has `phones`.

    For an id that was merged away the answer is the user that remains: its `id` differs, and its `former_ids` hold the
    id asked for. An erased user is not found.
    """
    for user in await look_up(database, ids=[user_id]):
        return user_for_siblings(user, client.scopes)
    raise NotFound("there is no such user")


@router.post("/v1/users/lookup", summary=Title("Look up many users", "批量查询用户"))
async def look_users_up(client: UsersClientDep, database: DatabaseDep, body: LookupRequest) -> LookupAnswer:
    """Up to 200 users by id, openid or external id, for a client with the scope `users`; by unionid with `unionids`.

    Each user is in the answer once, at the place where the request first names them: ids, then openids, then external
    ids, then unionids. Unknown ones are left out.
    """
    if body.unionids is not None and Scope.UNIONIDS not in client.scopes:
        raise lacking(client, Scope.UNIONIDS)
    openids: list[IdentityJson] = [{"app_id": each.app_id, "openid": each.openid} for each in body.openids or ()]
    users = await look_up(
        database,
        ids=body.ids or (),
        openids=openids,
        external_ids=body.external_ids or (),
        unionids=body.unionids or (),
    )
    return LookupAnswer.model_construct(items=[user_for_siblings(user, client.scopes) for user in users])


@router.patch(
    "/v1/users/{user_id}/attributes",
    summary=Title("Change a user's attributes", "修改用户属性"),
    failures=[NO_SUCH_USER],
)
async def patch_attributes(
    client: AttributesClientDep,
    database: DatabaseDep,
    clock: ClockDep,
    device: DeviceDep,
    user_id: UUID,
    body: AttributesRequest,
) -> None:
    """Change attributes by a merge patch (RFC 7396), for a service client with the scope `attributes`.

    Names that the patch does not have stay as they are, and null removes one. For an id that was merged away, the user
    that remains is changed.
    """
    by = Actor(client.name, device.ip)
    await change_user(database, user_id, UserChange(attributes=body.root), by=by, now=clock())


@router.put(
    "/v1/users/{user_id}/external-id",
    summary=Title("Set a user's external id", "设置用户的 external_id"),
    failures=[NO_SUCH_USER, ExternalIdTaken],
)
async def put_external_id(
    client: AttributesClientDep,
    database: DatabaseDep,
    clock: ClockDep,
    device: DeviceDep,
    user_id: UUID,
    body: ExternalIdRequest,
) -> None:
    """Set the id that a user has in your own system, or remove it, for a service client with the scope `attributes`.

    Idempotent. Access tokens have it from the next refresh on. For an id that was merged away, the user that remains
    is changed.
    """
    await set_external_id(database, user_id, body.external_id, by=Actor(client.name, device.ip), now=clock())


async def _moderator(client: ModeratingClientDep, device: DeviceDep) -> Actor:
    return Actor(f"client:{client.name}", device.ip)


_Moderator = Annotated[Actor, Depends(_moderator)]


@router.post("/v1/users/{user_id}/ban", summary=Title("Ban a user", "封禁用户"), failures=[NO_SUCH_USER, _IS_STAFF])
async def ban_user(
    moderator: _Moderator, database: DatabaseDep, clock: ClockDep, user_id: UUID, body: BanRequest | None = None
) -> None:
    """Ban a user, for a service client with the scope `moderate`. Every session ends at once.

    Idempotent; another reason or end replaces the former one. For an id that was merged away, the user that remains is
    banned. Staff cannot be banned.
    """
    ban = body or BanRequest()
    change = UserChange(status=UserStatus.DISABLED, reason=ban.reason, until=ban.until)
    await change_user(database, user_id, change, by=moderator, spares_staff=True, now=clock())


@router.post("/v1/users/{user_id}/unban", summary=Title("Unban a user", "解除封禁"), failures=[NO_SUCH_USER, _IS_STAFF])
async def unban_user(moderator: _Moderator, database: DatabaseDep, clock: ClockDep, user_id: UUID) -> None:
    """Lift a user's ban, whoever imposed it, for a service client with the scope `moderate`. Idempotent."""
    change = UserChange(status=UserStatus.ACTIVE)
    await change_user(database, user_id, change, by=moderator, spares_staff=True, now=clock())


@router.delete(
    "/v1/users/{user_id}/sessions",
    summary=Title("Sign a user out everywhere", "强制下线用户"),
    failures=[NO_SUCH_USER, _IS_STAFF],
)
async def sign_user_out(moderator: _Moderator, database: DatabaseDep, clock: ClockDep, user_id: UUID) -> None:
    """End every session of a user, for a service client with the scope `moderate`. The user may log in again."""
    await end_sessions_of(database, user_id, by=moderator, spares_staff=True, now=clock())
