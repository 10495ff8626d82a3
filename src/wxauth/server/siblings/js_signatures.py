"""The route for signatures of the JS-SDK, with which pages in WeChat's browser call WeChat."""

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from wxauth.errors import InvalidRequest, Title, UnknownApp, WrongAppKind
from wxauth.server.apps.js_tickets import JsTickets
from wxauth.server.apps.routes import AppsDep
from wxauth.server.clients.service_clients import JsSigningClientDep
from wxauth.server.web.answers import WECHAT_FAILURES
from wxauth.server.web.dependencies import provide
from wxauth.server.web.direct import Router
from wxauth.texts import is_http_url

_URL: Final = re.compile(r"[^\x00-\x20\x7f\\]{1,2048}")
_NOT_A_URL: Final = InvalidRequest.of("url", "Must be an http or https URL of at most 2048 characters, without a user")
_OTHER_HOST: Final = InvalidRequest.of("url", "Must have a host that is one of the app's js_hosts")
JsTicketsDep = Annotated[JsTickets, Depends(provide(JsTickets))]
router = Router("siblings")


class JsSignatureRequest(BaseModel):
    """The page that calls `wx.config`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://shop.example.com/orders?page=2"}]}, hide_input_in_errors=True
    )

    url: str = Field(description="The page's address, as in `location.href`; a fragment is left out.")


class JsSignatureAnswer(TypedDict):
    """What `wx.config` takes."""

    appId: Annotated[str, Field(examples=["wx1a2b3c4d5e6f7a8b"])]
    timestamp: Annotated[int, Field(description="Seconds since 1970.", examples=[1795161600])]
    nonceStr: Annotated[str, Field(examples=["Wm3WZYTPz0wzccnW"])]
    signature: Annotated[
        str,
        Field(description="SHA-1, in lower-case hexadecimal.", examples=["0f9de62fce790f9a083d5c99e95740ceb90c27ed"]),
    ]


@router.post(
    "/v1/apps/{app_id}/js-signatures",
    summary=Title("Sign a page for WeChat's JS-SDK", "为网页签名（JS-SDK）"),
    failures=[UnknownApp, WrongAppKind, _NOT_A_URL, *WECHAT_FAILURES],
)
async def sign_page(
    _: JsSigningClientDep, app_id: str, apps: AppsDep, js_tickets: JsTicketsDep, body: JsSignatureRequest
) -> JsSignatureAnswer:
    """The signature with which a page in WeChat's browser calls `wx.config`, for a client with the scope `js_sign`.

    The app must be an `official_account`, and the page's host one of its `js_hosts`, as in WeChat's console. wxauth
    keeps WeChat's ticket, and gives it to nobody. A client may sign 100 times a second in each process.
    """
    app = apps.find(app_id)
    if app.kind != "official_account":
        raise WrongAppKind(f"WeChat gives a {app.kind} no ticket of the JS-SDK")
    if not _URL.fullmatch(body.url) or not is_http_url(body.url) or "@" in urlsplit(body.url).netloc:
        raise InvalidRequest.of(*_NOT_A_URL.errors[0])
    parts = urlsplit(body.url)
    if not {parts.hostname, parts.netloc.lower()} & set(app.js_hosts or ()):
        raise InvalidRequest.of(*_OTHER_HOST.errors[0])
    made = await js_tickets.sign(app, body.url)
    return {"appId": app.app_id, "timestamp": made.timestamp, "nonceStr": made.nonce, "signature": made.signature}
