"""The messages that the simulated WeChat signs, pushes to the service, and sends again if it does not accept them."""

import asyncio
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, NamedTuple

import httpx
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from pydantic import StringConstraints
from pydantic_core import to_json

from wxauth_desk.wechat.call_record import CallRecord
from wxauth_desk.wechat.controls import APPS_BY_ID, ControlOfPerson, HttpUrl

# WeChat waits so many seconds before each repetition. It documents no pauses for messages that are not about payments.
_MESSAGE_PAUSES: Final = (0, 0)
PAYMENT_PAUSES: Final = (15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600)
ATTEMPT_TIMEOUT_SECONDS: Final = 5.0

# These are WeChat's names of events.
REVOKED: Final = "user_authorization_revoke"  # a user has withdrawn an app's permission to use data
CHECKED: Final = "wxa_media_check"  # WeChat has a verdict on a picture
DELIVER: Final = "xpay_goods_deliver_notify"  # a user has paid an order, and the shop must deliver the goods
REFUNDED: Final = "xpay_refund_notify"

_SERVICE_PATH: Final = "/v1/wechat/push/"  # before the app's id
_PADDING_BLOCK_BYTES: Final = 32  # WeChat pads to blocks of 32 bytes, though AES has blocks of 16
_MAX_ANSWER_LENGTH: Final = 500
_PAYMENT_ACCEPTED: Final = re.compile(r'"ErrCode"\s*:\s*0\b|<ErrCode>\s*(<!\[CDATA\[)?0\b')  # in JSON or XML

Mode = Literal["plain", "aes"]
Format = Literal["json", "xml"]


class PushRequest(ControlOfPerson):
    """The body of `POST /push`, which pushes an event about a person."""

    event: Annotated[str, StringConstraints(pattern="^[A-Za-z_]{1,64}$")] = REVOKED
    # By default, `user_authorization_revoke` withdraws the nickname and the picture or, for a website app or a mobile
    # app, everything.
    revoke_info: Annotated[str, StringConstraints(pattern="^[0-9]{1,4}$")] | None = None
    mode: Mode | None = None  # by default, `aes` for an app with a push_aes_key
    format: Format = "json"
    url: HttpUrl | None = None  # by default, the app's `push_url`, and without one, wxauth's route for messages


class Push(NamedTuple):
    """A message to push, with the request that chooses its receiver, mode and format."""

    request: PushRequest
    message: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SignedPush:
    """A request in the form in which WeChat sends it."""

    query: Mapping[str, str]
    body: bytes
    content_type: str


class _Attempt(NamedTuple):
    shown: dict[str, Any]  # `status` and the beginning of `answer`; without a response, None and the name of the error
    is_accepted: bool
    call_id: int


def make_event_message(event: str, fields: Mapping[str, Any], *, app_id: str, now: int) -> dict[str, Any]:
    """`now` is in seconds since the epoch."""
    return {
        "ToUserName": f"gh_{app_id[-12:]}",
        "FromUserName": f"o{app_id}-push",  # WeChat's push service, and not the user
        "CreateTime": now,
        "MsgType": "event",
        "Event": event,
        **fields,
    }


def make_person_message(openid: str, event: str, revoke_info: object, *, app_id: str, now: int) -> dict[str, Any]:
    """Return the message of an event about a person. `revoke_info` is used only for the event `REVOKED`."""
    revoked = {"RevokeInfo": revoke_info} if event == REVOKED else {}
    return make_event_message(event, {"OpenID": openid, "AppID": app_id, **revoked}, app_id=app_id, now=now)


def make_verdict_message(trace_id: str, suggest: str, label: int, *, app_id: str, now: int) -> dict[str, Any]:
    """Return the message with which WeChat reports its verdict (`suggest` and `label`) on a picture."""
    result = {"suggest": suggest, "label": label}
    fields = {
        "appid": app_id,
        "trace_id": trace_id,
        "version": 2,
        "detail": [{"strategy": "content_model", "errcode": 0, **result, "prob": 90}],
        "errcode": 0,
        "errmsg": "ok",
        "result": result,
    }
    return make_event_message(CHECKED, fields, app_id=app_id, now=now)


def sign_push(
    app: Mapping[str, str], message: Mapping[str, Any], *, mode: Mode, format: Format, timestamp: str, nonce: str
) -> SignedPush:
    """Return the signed request with which WeChat pushes a message for an app, one of those in `APPS_BY_ID`.

    With the mode `aes`, the message is encrypted with the app's `push_aes_key`. `timestamp` is in seconds since the
    epoch.
    """
    body = _serialized(message, format)
    query = {"timestamp": timestamp, "nonce": nonce, "openid": str(message.get("FromUserName", ""))}
    query["signature"] = push_signature(app["push_token"], timestamp, nonce)
    if mode == "aes":
        encrypted = encrypt(body, key=app["push_aes_key"], app_id=app["app_id"], random=secrets.token_hex(8).encode())
        query["encrypt_type"] = "aes"
        query["msg_signature"] = push_signature(app["push_token"], timestamp, nonce, encrypted)
        body = _serialized({"ToUserName": message.get("ToUserName", ""), "Encrypt": encrypted}, format)
    return SignedPush(query, body, "application/json" if format == "json" else "text/xml")


def push_signature(*parts: str) -> str:
    """Return the signature that WeChat would send for these values, one of which must be the app's push_token.

    The order of the values does not matter, because WeChat sorts them.
    """
    return sha1("".join(sorted(parts)).encode(), usedforsecurity=False).hexdigest()


def encrypt(message: bytes, *, key: str, app_id: str, random: bytes) -> str:
    """Encrypt a message as WeChat does. `key` is the EncodingAESKey, and `random` is 16 random bytes."""
    aes_key = b64decode(key + "=")  # an EncodingAESKey is base64 without its padding
    plain = random + len(message).to_bytes(4, "big") + message + app_id.encode()
    padding = _PADDING_BLOCK_BYTES - len(plain) % _PADDING_BLOCK_BYTES
    encryptor = Cipher(AES256(aes_key), CBC(aes_key[:16])).encryptor()
    return b64encode(encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()).decode()


@dataclass
class PushSender:
    """The part of the simulated WeChat that pushes messages to the URLs of the apps."""

    clock: Callable[[], float]  # returns seconds since the epoch
    service_url: str
    push_url_of: Callable[[str], str | None]  # by app id; None for an app whose messages the service gets
    transport: httpx.AsyncBaseTransport | None  # for tests; None to use HTTP
    call_record: CallRecord
    pause: Callable[[float], Awaitable[None]]
    # asyncio itself stores only weak references, so a task could be deleted while it runs.
    _under_way: set[asyncio.Task[None]] = field(init=False, default_factory=set)

    async def send(self, push: Push) -> dict[str, Any]:
        """Send a message, up to three times in quick succession, until the service accepts it (`is_taken`).

        Raises: ValueError, if the app has no key for the mode `aes`.
        """
        attempts = [attempt async for attempt in self._attempts(push, _MESSAGE_PAUSES)]
        return {"is_taken": attempts[-1].is_accepted, "attempts": [attempt.shown for attempt in attempts]}

    async def send_and_repeat(self, push: Push) -> bool:
        """Send a notice about a payment. Return whether the service has accepted the notice at the first attempt.

        If it has not, send the notice again in the background, after the pauses in `PAYMENT_PAUSES`.
        """
        attempts = self._attempts(push, PAYMENT_PAUSES)
        first = await anext(attempts)
        self._continue_in_background(attempts)
        return first.is_accepted

    def send_later(self, push: Push) -> None:
        """Send a message in the background, so that the service first gets the response to its own call."""
        self._continue_in_background(self._attempts(push, _MESSAGE_PAUSES))

    def _continue_in_background(self, attempts: AsyncIterator[object]) -> None:
        async def make_attempts() -> None:
            async for _ in attempts:
                pass

        task = asyncio.create_task(make_attempts(), name="message push")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _attempts(self, push: Push, pauses: Sequence[float]) -> AsyncIterator[_Attempt]:
        request, message = push
        first_call_id = None
        for repetition, seconds in enumerate((0, *pauses)):
            if seconds:
                await self.pause(seconds)
            if "RetryTimes" in message:  # the notice about a refund counts its repetitions
                message = {**message, "RetryTimes": repetition}
            attempt = await self._attempt(request, message, first_call_id)
            first_call_id = first_call_id or attempt.call_id
            yield attempt
            if attempt.is_accepted:
                return

    async def _attempt(self, request: PushRequest, message: Mapping[str, Any], first_call_id: int | None) -> _Attempt:
        app = APPS_BY_ID[request.app_id]
        mode: Mode = request.mode or ("aes" if "push_aes_key" in app else "plain")
        if mode == "aes" and "push_aes_key" not in app:
            raise ValueError("mode: this app has no push_aes_key")
        timestamp, nonce = str(int(self.clock())), str(secrets.randbelow(2**31))
        signed = sign_push(app, message, mode=mode, format=request.format, timestamp=timestamp, nonce=nonce)
        to_service = self.service_url + _SERVICE_PATH + request.app_id
        url = httpx.URL(request.url or self.push_url_of(request.app_id) or to_service)
        with self.call_record.recording(
            "weChatToService", "POST", url.path, {}, message, repeats=first_call_id
        ) as call:
            try:
                async with (
                    asyncio.timeout(ATTEMPT_TIMEOUT_SECONDS),
                    httpx.AsyncClient(transport=self.transport, trust_env=False) as client,
                ):
                    headers = {"Content-Type": signed.content_type}
                    target = url.copy_merge_params(signed.query)
                    answer = await client.post(target, content=signed.body, headers=headers)
                is_accepted = _is_accepted(message, answer)
                shown = {"status": answer.status_code, "answer": answer.text[:_MAX_ANSWER_LENGTH]}
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as exc:
                is_accepted = False
                shown = {"status": None, "answer": type(exc).__name__}
            call |= shown
        return _Attempt(shown, is_accepted, call["id"])


def _is_accepted(message: Mapping[str, Any], answer: httpx.Response) -> bool:
    if answer.status_code != HTTPStatus.OK:
        return False
    if message["Event"] in (DELIVER, REFUNDED):
        return _PAYMENT_ACCEPTED.search(answer.text) is not None
    return answer.text == "success"


def _serialized(fields: Mapping[str, Any], format: Format) -> bytes:
    if format == "json":
        return to_json(fields)
    return f"<xml>{_elements(fields)}</xml>".encode()


def _elements(fields: Mapping[str, Any]) -> str:
    return "".join(f"<{name}>{_content(value)}</{name}>" for name, value in fields.items())


def _content(value: object) -> str:
    if isinstance(value, list):
        return "".join(f"<item>{_content(item)}</item>" for item in value)
    if isinstance(value, dict):
        return _elements(value)
    if isinstance(value, int):
        return str(value)
    # A `]]>` in the value would end the section, so it is divided between two sections.
    return f"<![CDATA[{str(value).replace(']]>', ']]]]><![CDATA[>')}]]>"
