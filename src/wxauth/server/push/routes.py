"""`/v1/wechat/push/{app_id}`: messages that WeChat pushes to us."""

from typing import Annotated, Any, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from wxauth.errors import (
    InvalidRequest,
    InvalidSignature,
    NotFound,
    PayloadTooLarge,
    StorageUnavailable,
    Title,
    UnknownApp,
)
from wxauth.server.push.receiving import PushedMessages
from wxauth.server.web.dependencies import provide
from wxauth.server.web.direct import Router

router = Router("wechat")

PushedMessagesDep = Annotated[PushedMessages, Depends(provide(PushedMessages))]

_NO_STORE: Final = {"Cache-Control": "no-store"}
_WRONG_BODY: Final = InvalidRequest.of("OpenID", "Field required")
_WRONG_ECHOSTR: Final = InvalidRequest.of("echostr", "Must be 1 to 256 printable characters")
_NOT_TAKEN: Final = (UnknownApp, InvalidSignature, NotFound, StorageUnavailable)
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


def _parameters(*names: str) -> list[dict[str, Any]]:
    # Documented here but read from the request: FastAPI would answer 422 for a missing one, not `invalid_signature`.
    return [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names]


@router.get(
    "/v1/wechat/push/{app_id}",
    summary=Title("Verify the push URL (called by WeChat)", "确认推送地址（由微信调用）"),
    responses={
        200: {"content": {"text/plain": {"example": "4375120948345356249"}}},
    },
    failures=[_WRONG_ECHOSTR, *_NOT_TAKEN],
    openapi_extra={"parameters": _parameters("signature", "timestamp", "nonce", "echostr")},
)
async def verify_push_url(app_id: str, request: Request, pushed: PushedMessagesDep) -> PlainTextResponse:
    """Answer `echostr` if `signature` was made with the app's `push_token`, at most five minutes ago."""
    text = await pushed.echo(app_id, request.query_params)
    return PlainTextResponse(text, headers=_NO_STORE)


@router.post(
    "/v1/wechat/push/{app_id}",
    summary=Title("Receive a message from WeChat", "接收微信推送的消息"),
    responses={
        200: {"content": {"text/plain": {"example": "success"}}},
    },
    failures=[_WRONG_BODY, PayloadTooLarge, *_NOT_TAKEN],
    openapi_extra={
        "parameters": _parameters("signature", "timestamp", "nonce", "encrypt_type", "msg_signature"),
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _MESSAGE, "example": _EXAMPLE_MESSAGE},
                "text/xml": {"schema": _MESSAGE, "example": _EXAMPLE_MESSAGE},
            },
        },
    },
)
async def receive_push(app_id: str, request: Request, pushed: PushedMessagesDep) -> PlainTextResponse:
    """Process a message, and answer `success`. After any other answer, WeChat sends the message again.

    `user_authorization_revoke` erases the fields that `RevokeInfo` names (6: nickname and picture, 8: phone number, 19:
    nickname, 20: picture). `user_authorization_cancellation` erases the user. `wxa_media_check` is WeChat's verdict on
    a picture (`AVATAR_CHECK`). All other messages are accepted and
    ignored. A repeated message changes nothing. A `timestamp` more than five minutes off is refused. So are a
    `timestamp` and `nonce` already used for another message or for the check of the URL, because without a
    `push_aes_key` the signature does not cover the message. An app with a `push_aes_key` accepts only encrypted
    messages.
    """
    await pushed.receive(app_id, request.query_params, await request.body())
    return PlainTextResponse("success", headers=_NO_STORE)
