"""The route `/v1/wechat/push/{app_id}` for messages that WeChat pushes."""

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from wxauth.errors import InvalidSignature, NotFound, PayloadTooLarge, PushNotForwarded, StorageUnavailable, UnknownApp
from wxauth.i18n import lazy_gettext as _
from wxauth.push.forwarding import FORWARDED_HEADER, PushRequest
from wxauth.push.receiving import WRONG_ECHOSTR, PushedMessages
from wxauth.settings.apps import PUSH_PATH
from wxauth.web.dependencies import provide
from wxauth.web.direct import Router, text_parameters
from wxauth.web.edge import MAX_BODY
from wxauth_guard.errors import InvalidRequest

router = Router("wechat")

MAX_MESSAGE: Final = 1024 * 1024  # bytes

PushedMessagesDep = Annotated[PushedMessages, Depends(provide(PushedMessages))]

_NO_STORE: Final = {"Cache-Control": "no-store"}
# The following failures are only for the API's documentation. When a request fails, `PushedMessages` raises its own.
_WRONG_BODY: Final = InvalidRequest.of("OpenID", "Field required")
_WRONG_ECHOSTR: Final = InvalidRequest.of("echostr", WRONG_ECHOSTR)
_REFUSALS: Final = (UnknownApp, InvalidSignature, NotFound, StorageUnavailable)
_EXAMPLE_MESSAGE: Final = {
    "ToUserName": "gh_1a2b3c4d5e6f",
    "FromUserName": "oGZUI0bJY1zhBYw2KhdUfwVJJEBf",
    "CreateTime": "1795161600",
    "MsgType": "event",
    "Event": "user_authorization_revoke",
    "OpenID": "oGZUI0egBJY1zhBYw2KhdUfwVJJE",
    "RevokeInfo": "6",
}
_MESSAGE: Final = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in (*_EXAMPLE_MESSAGE, "Encrypt")},
    "xml": {"name": "xml"},
}


@router.get(
    PUSH_PATH,
    summary=_("Verify the push URL (called by WeChat)"),
    responses={HTTPStatus.OK: {"content": {"text/plain": {"example": "4375120948345356249"}}}},
    failures=[_WRONG_ECHOSTR, *_REFUSALS],
    openapi_extra=text_parameters("signature", "timestamp", "nonce", "echostr"),
)
async def verify_push_url(app_id: str, request: Request, pushed: PushedMessagesDep) -> PlainTextResponse:
    """Return `echostr` if `signature` was made with the app's `push_token`.

    `timestamp` may differ from wxauth's clock by at most five minutes.
    """
    text = await pushed.echo(app_id, request.query_params)
    return PlainTextResponse(text, headers=_NO_STORE)


@router.post(
    PUSH_PATH,
    summary=_("Receive a message from WeChat"),
    responses={HTTPStatus.OK: {"content": {"text/plain": {"example": "success"}}}},
    failures=[_WRONG_BODY, PayloadTooLarge, *_REFUSALS, PushNotForwarded("push_forward: its status was 500")],
    openapi_extra={
        **text_parameters("signature", "timestamp", "nonce", "encrypt_type", "msg_signature"),
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _MESSAGE, "example": _EXAMPLE_MESSAGE},
                "text/xml": {"schema": _MESSAGE, "example": _EXAMPLE_MESSAGE},
            },
        },
    },
)
async def receive_push(app_id: str, request: Request, pushed: PushedMessagesDep) -> Response:
    """Process a message, and return `success`. After any other response, WeChat sends the message again.

    `user_authorization_revoke` erases the data whose code is in `RevokeInfo`:

    - mini-program: 6 nickname and picture, 8 phone number, 19 nickname, 20 picture
    - service account: 205 nickname and picture
    - website or mobile app: 301 the identity in this app, or the user if there is no other identity. If this user is
      banned, the erasure waits for the end of the ban.

    `user_info_modified` clears nickname and picture. `user_authorization_cancellation` erases the user, or only the
    closed WeChat account if the user has several. A repeated message changes nothing.

    If the app has a `push_forward`, each message is then forwarded to that URL unchanged, and the response of that URL
    is returned. Otherwise all other messages are accepted and ignored.

    wxauth refuses a `timestamp` that differs from its clock by more than five minutes. It also refuses a `timestamp`
    and `nonce` that were already used for another message or for the check of the URL, because without a `push_aes_key`
    the signature does not cover the message. An app with a `push_aes_key` accepts only encrypted messages.
    """

    async def read() -> PushRequest:
        # The raw header is read, because it is forwarded unchanged.
        raw_headers = request.scope["headers"]
        content_type = next((value for name, value in raw_headers if name == b"content-type"), None)
        return PushRequest(
            query=request.scope["query_string"],
            content_type=content_type,
            is_forwarded=FORWARDED_HEADER in request.headers,
            body=await request.body(),
        )

    # `receive` limits how many requests with a long body are read at the same time.
    length = request.headers.get("content-length")
    is_long = length is None or int(length) > MAX_BODY  # the server has checked that this is a number
    answer = await pushed.receive(app_id, request.query_params, read, is_long=is_long)
    headers = dict(_NO_STORE)
    if answer.content_type is not None:
        headers["Content-Type"] = answer.content_type
    return Response(answer.content, headers=headers)
