"""The routes for services that call WeChat themselves, and need WeChat's access tokens or signatures to do so."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Final, NamedTuple, Self
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Depends
from pydantic import AfterValidator, BaseModel, Field, StrictBool, model_validator
from starlette.requests import Request
from typing_extensions import TypedDict

from wxauth.apps.js_tickets import JsTickets
from wxauth.apps.registry import Apps
from wxauth.apps.routes import AppsDep
from wxauth.clients.credentials import basic_credentials, check_secret
from wxauth.clients.models import Scope
from wxauth.clients.queries import ServiceClient
from wxauth.clients.rules import is_client_name
from wxauth.clients.service_clients import (
    FOR_LIMITED_CLIENT,
    ClientLimitsDep,
    ClientOperation,
    JsSigningClientDep,
    WeChatTokenClientDep,
    check_scope,
)
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.metrics import Counter
from wxauth.core.services import part
from wxauth.core.trail import Actor, EventType, record_daily
from wxauth.errors import AccountDisabled, AccountLeaving, SessionKeyExpired, UnknownApp, WrongAppKind
from wxauth.i18n import lazy_gettext as _
from wxauth.session_keys.queries import KeyOfLogin
from wxauth.session_keys.routes import SessionKeysDep
from wxauth.session_keys.session_keys import LOG_IN_AGAIN, SignatureAnswer
from wxauth.settings.apps import App
from wxauth.settings.urls import MAX_URL, is_url_without_user
from wxauth.siblings.queries import client_and_keys
from wxauth.siblings.user_routes import ShortText
from wxauth.users.admin_routes import NO_SUCH_USER
from wxauth.users.callers import DeviceDep
from wxauth.web.answers import WECHAT_FAILURES
from wxauth.web.bodies import read_body
from wxauth.web.dependencies import ClockDep, DatabaseDep, provide
from wxauth.web.direct import Router
from wxauth.web.schemas import EXAMPLE_OPENID, body_like
from wxauth.wechat.wechat_tokens import WeChatToken, WeChatTokens
from wxauth_guard.errors import InvalidRequest, WxAuthError

SIGNATURES_PATH: Final = "/v1/apps/{app_id}/signatures"
MAX_SIGNED_BYTES: Final = 16 * 1024
# The limit is more than six times `MAX_SIGNED_BYTES`, because JSON can escape one byte as six.
MAX_SIGNATURE_BODY: Final = 128 * 1024
SIGNATURES: Final = Counter(
    "wxauth_signatures",
    "Requests of service clients for signatures with a session_key, by app and outcome: ok or the code of the error.",
    "app_id",
    "outcome",
)

_KEY_EXPIRED: Final = SessionKeyExpired(LOG_IN_AGAIN)  # only for the OpenAPI document
# No identity has this openid. It is looked up if the body is invalid.
_NO_OPENID: Final = ""
_URL_RULE: Final = f"Must be an http or https URL of at most {MAX_URL} characters, without a user"
# If WeChat replaces the token without wxauth's knowledge, clients get the old one for at most this time.
LOOKED_WITHIN: Final = timedelta(minutes=1)
WECHAT_TOKEN_READS: Final = Counter(
    "wxauth_access_token_reads",
    "Requests of service clients for WeChat access tokens, by app and outcome: ok or the code of the error.",
    "app_id",
    "outcome",
)
JsTicketsDep = Annotated[JsTickets, Depends(provide(JsTickets))]
router = Router("siblings")


@part
class SharedWeChatTokens:
    apps: Apps
    wechat_tokens: WeChatTokens
    database: Database
    clock: Clock

    async def read(self, client_id: str, app_id: str, *, ip: str | None) -> WeChatToken:
        """Return the app's WeChat token for a service client. The audit trail records the first read of each UTC day.

        Raises: UnknownApp; WrongAppKind, if WeChat issues no such tokens to this kind of app; WeChatError.
        """
        app = self.apps.find(app_id)
        if not app.has_wechat_token:
            raise WrongAppKind(f"WeChat doesn't issue access tokens to a {app.kind}")
        with WECHAT_TOKEN_READS.outcome_of(app.app_id):
            token = await self.wechat_tokens.get(app, looked_within=LOOKED_WITHIN)
        by = Actor(client_id, ip)
        await record_daily(self.database, EventType.WECHAT_TOKEN_READ, by=by, app_id=app.app_id, now=self.clock())
        return token


SharedWeChatTokensDep = Annotated[SharedWeChatTokens, Depends(provide(SharedWeChatTokens))]


class WeChatTokenAnswer(BaseModel):
    """The token that a service needs to call WeChat's server API for an app."""

    access_token: str = Field(repr=False, description="512 characters or more.", examples=["88_kVQ1PSZ6XO7..."])
    expires_in: int = Field(description="Seconds.", examples=[6871])


@router.get(
    "/v1/apps/{app_id}/access-token",
    summary=_("Read an app's WeChat access token"),
    operation_id="read_access_token",
    failures=[UnknownApp, WrongAppKind, *WECHAT_FAILURES],
)
async def read_wechat_token(
    client: WeChatTokenClientDep, app_id: str, shared: SharedWeChatTokensDep, device: DeviceDep
) -> WeChatTokenAnswer:
    """Return the app's WeChat access token, for a client with the scope `access_token`. The client needs no app secret.

    The token is WeChat's `stable_token`, which all clients share. wxauth renews it some minutes before its end, while
    the previous one still works. Request the token before each batch of work instead of storing it. The request is
    fast, because wxauth caches the token. If wxauth has not asked WeChat for a minute, it first asks for the current
    token. If WeChat refuses your token (40001, 40014, 42001), request it here again, never from WeChat.
    """
    token = await shared.read(client.name, app_id, ip=device.ip)
    return WeChatTokenAnswer(access_token=token.value.get_secret_value(), expires_in=token.expires_in)


def _check_size(data: str) -> str:
    if len(data.encode()) > MAX_SIGNED_BYTES:
        raise ValueError(f"Must have at most {MAX_SIGNED_BYTES} bytes")
    return data


_DataToSign = Annotated[str, AfterValidator(_check_size)]


class SignatureRequest(BaseModel):
    """The data to sign, and the user whose session_key signs it. `openid` or `user_id` identifies the user."""

    model_config = body_like({"openid": EXAMPLE_OPENID, "data": '{"offerId":"1450000000","env":0}'})

    openid: ShortText | None = None
    user_id: UUID | None = Field(default=None, description="Must have exactly one identity in the app.")
    data: _DataToSign = Field(description=f"Up to {MAX_SIGNED_BYTES:,} bytes of UTF-8, which are signed unchanged.")
    check: StrictBool = Field(
        default=False,
        description="Whether wxauth first verifies with WeChat that the session_key is valid.",
    )

    @model_validator(mode="after")
    def _check_names_one_user(self) -> Self:
        if (self.openid is None) == (self.user_id is None):
            raise ValueError("Must have either openid or user_id")
        return self


class Signer(NamedTuple):
    """An authenticated client with the scope `sign`, and the keys that match its request."""

    name: str
    keys: Sequence[KeyOfLogin]


async def signer_of(
    request: Request, apps: AppsDep, database: DatabaseDep, clock: ClockDep, limits: ClientLimitsDep
) -> Signer:
    """Authenticate the client, and read the session_keys that match its request.

    `client_and_keys` reads both together. Therefore, the body is read before the client is authenticated, but an
    invalid client is reported before an invalid body.
    """
    app_id = request.path_params["app_id"]
    try:
        credentials = basic_credentials(request)
        name = credentials.client_id
        body = await _body_or_error(request)
        openid, user_id = (_NO_OPENID, None) if isinstance(body, InvalidRequest) else (body.openid, body.user_id)
        stored_client: ServiceClient | None = None
        keys: Sequence[KeyOfLogin] = ()
        if is_client_name(name):
            stored_client, keys = await client_and_keys(database, name, app_id=app_id, openid=openid, user_id=user_id)
        client = check_secret(credentials, stored_client, now=clock())
        await limits.admit(name, ClientOperation.SIGN)
        check_scope(client, Scope.SIGN)
        if isinstance(body, InvalidRequest):
            raise body
    except WxAuthError as exc:
        SIGNATURES.count(apps.label_of(app_id), exc.code)
        raise
    return Signer(name, keys)


async def _body_or_error(request: Request) -> SignatureRequest | InvalidRequest:
    try:
        # FastAPI reads the body again as an argument of the route, which puts the body into the OpenAPI document.
        return read_body(SignatureRequest, await request.body())
    except InvalidRequest as exc:
        return exc


SignerDep = Annotated[Signer, Depends(signer_of), FOR_LIMITED_CLIENT]


@router.post(
    SIGNATURES_PATH,
    summary=_("Sign data with a user's session_key"),
    failures=[UnknownApp, WrongAppKind, NO_SUCH_USER, AccountDisabled, AccountLeaving, _KEY_EXPIRED, *WECHAT_FAILURES],
)
async def sign_with_session_key(
    signer: SignerDep,
    app_id: str,
    apps: AppsDep,
    limits: ClientLimitsDep,
    session_keys: SessionKeysDep,
    device: DeviceDep,
    body: SignatureRequest,
) -> SignatureAnswer:
    """Return the HMAC-SHA256 of `data` with the identity's newest session_key, for a client with the scope `sign`.

    The key is the base64 text from WeChat, not decoded, as `wx.requestVirtualPayment` and the APIs under `/xpay`
    require it. WeChat accepts only the newest key. If wxauth reports `session_key_expired`, let the mini-program log in
    again, and try once more. With `check`, wxauth asks WeChat first. A client can sign 100 times a second in each
    process, and have ten of these signatures checked.
    """
    with SIGNATURES.outcome_of(apps.label_of(app_id)):
        if body.check:
            await limits.admit(signer.name, ClientOperation.SIGN_CHECK)
        by = Actor(signer.name, device.ip)
        return await session_keys.sign(app_id, signer.keys, body.data.encode(), must_be_current=body.check, by=by)


class JsSignatureRequest(BaseModel):
    """The page that calls `wx.config`."""

    model_config = body_like({"url": "https://shop.example.com/orders?page=2"})

    url: str = Field(description="The page's address, as in `location.href`. wxauth ignores a fragment.")


class JsSignatureAnswer(TypedDict):
    """The parameters of `wx.config`."""

    appId: Annotated[str, Field(examples=["wx1a2b3c4d5e6f7a8b"])]
    timestamp: Annotated[int, Field(description="Seconds since 1970.", examples=[1795161600])]
    nonceStr: Annotated[str, Field(examples=["Wm3WZYTPz0wzccnW"])]
    signature: Annotated[
        str,
        Field(description="SHA-1, in lower-case hexadecimal.", examples=["0f9de62fce790f9a083d5c99e95740ceb90c27ed"]),
    ]


@router.post(
    "/v1/apps/{app_id}/js-signatures",
    summary=_("Sign a page for WeChat's JS-SDK"),
    failures=[UnknownApp, WrongAppKind, InvalidRequest.of("url", _URL_RULE), *WECHAT_FAILURES],
)
async def sign_page(
    _client: JsSigningClientDep, app_id: str, apps: AppsDep, js_tickets: JsTicketsDep, body: JsSignatureRequest
) -> JsSignatureAnswer:
    """Return the signature that a page in WeChat needs to call `wx.config`, for a client with the scope `js_sign`.

    The app must be an `official_account`. Its `js_hosts`, which are the hosts entered in WeChat's console, must contain
    the page's host. wxauth stores WeChat's ticket, and returns it to no client. A client can sign 100 times a second in
    each process.
    """
    app = apps.find(app_id)
    if app.kind != "official_account":
        raise WrongAppKind(f"WeChat doesn't issue JS-SDK tickets to a {app.kind}")
    signed = await js_tickets.sign(app, _url_to_sign(app, body.url))
    return {"appId": app.app_id, "timestamp": signed.timestamp, "nonceStr": signed.nonce, "signature": signed.signature}


def _url_to_sign(app: App, url: str) -> str:
    if not is_url_without_user(url):
        raise InvalidRequest.of("url", _URL_RULE)
    parts = urlsplit(url)
    js_hosts = app.js_hosts or ()
    if parts.hostname not in js_hosts and parts.netloc.lower() not in js_hosts:  # with or without a port
        raise InvalidRequest.of("url", "Must have a host from the app's js_hosts")
    if "&amp;" in url:  # the URL was copied from HTML, so it differs from the page's address
        raise InvalidRequest.of("url", "Must be `location.href`, with & in place of &amp;")
    # In `location.href`, a slash always follows the host, even if the caller has left the slash out.
    return url if parts.path else url.replace(f"://{parts.netloc}", f"://{parts.netloc}/", 1)
