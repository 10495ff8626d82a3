"""The route `/v1/introspect`, with which services that cannot use the guard check access tokens."""

from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Required

from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict

from wxauth.clients.oauth_requests import form_parameters, form_values
from wxauth.clients.service_clients import IntrospectingClientDep
from wxauth.core.database import Database
from wxauth.errors import PayloadTooLarge
from wxauth.i18n import lazy_gettext as _
from wxauth.keys.access_tokens import ResourceVerifierDep
from wxauth.sessions.queries import READ_USER_IN_SESSION
from wxauth.settings.claims import RESERVED_CLAIMS
from wxauth.users.callers import sees_roles
from wxauth.web import schemas
from wxauth.web.dependencies import ClockDep, DatabaseDep, VerifierDep
from wxauth.web.direct import Router
from wxauth_guard.errors import InvalidRequest, InvalidToken, KeysUnavailable
from wxauth_guard.verifier import Verifier

INTROSPECTION_PATH: Final = "/v1/introspect"
router = Router("siblings")


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


def _no_token() -> InvalidRequest:
    """Return a new exception for each call, because a raised one keeps its stack frames alive."""
    return InvalidRequest.of("token", "Field required")


@router.post(
    INTROSPECTION_PATH,
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
    """Return a token's claims, with the user's current roles and external id; None if the token is not valid now."""
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
    tokens = await form_values(request, "token")
    if not tokens:
        raise _no_token()
    if len(tokens) > 1:
        raise InvalidRequest.of("token", "Field given twice")
    return tokens[0]
