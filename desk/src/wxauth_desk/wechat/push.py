"""WeChat's message push on the desk: signed, encrypted and repeated."""

import asyncio
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Annotated, Any, Final, Literal

import httpx
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from pydantic import StringConstraints
from pydantic_core import to_json

from wxauth_desk.wechat.calls import Wires
from wxauth_desk.wechat.controls import BY_ID, ControlOfPerson, HttpUrl

AT_ONCE: Final = (0, 0)
"""The pauses, in seconds, before each repetition of most messages. WeChat does not document its pauses."""
OF_PAYMENTS: Final = (
    *(15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600),
    *(10800, 10800, 10800, 21600, 21600),
)
"""The pauses, in seconds, before each repetition of a notice about a payment."""
ATTEMPT_TIMEOUT_SECONDS: Final = 5.0
"""The time limit of an attempt to send a message."""

REVOKED: Final = "user_authorization_revoke"
CHECKED: Final = "wxa_media_check"
DELIVER: Final = "xpay_goods_deliver_notify"
REFUNDED: Final = "xpay_refund_notify"

_SERVICE_PATH: Final = "/v1/wechat/push/"
_BLOCK_BYTES: Final = 32
_MAX_ANSWER: Final = 500
_PAYMENT_TAKEN: Final = re.compile(r'"ErrCode"\s*:\s*0\b|<ErrCode>\s*(<!\[CDATA\[)?0\b')

Mode = Literal["plain", "aes"]
Format = Literal["json", "xml"]


class PushRequest(ControlOfPerson):
    """The body of `POST /push`, which pushes an event about a person."""

    event: Annotated[str, StringConstraints(pattern="^[A-Za-z_]{1,64}$")] = REVOKED
    revoke_info: Annotated[str, StringConstraints(pattern="^[0-9]{1,4}$")] | None = None
    """The code of the data that `user_authorization_revoke` withdraws.

    By default, it is name and picture, or everything of a website or a mobile app.
    """
    mode: Mode | None = None
    """The mode; by default `aes` for an app with a push_aes_key, and `plain` for others."""
    format: Format = "json"
    url: HttpUrl | None = None
    """The URL to send to; by default, the app's `push_url`."""


@dataclass(frozen=True, slots=True)
class SignedPush:
    """A request in the form in which WeChat sends it."""

    query: Mapping[str, str]
    body: bytes
    content_type: str


def make_event(event: str, fields: Mapping[str, Any], *, app_id: str, now: int) -> dict[str, Any]:
    """Return a message with these fields and the fields of every event. `now` is in seconds since the epoch."""
    return {
        "ToUserName": f"gh_{app_id[-12:]}",
        "FromUserName": f"o{app_id}-push",  # the account's own name
        "CreateTime": now,
        "MsgType": "event",
        "Event": event,
        **fields,
    }


def make_message(openid: str, event: str, revoke_info: object, *, app_id: str, now: int) -> dict[str, Any]:
    """Return the message of an event about a person."""
    about = {"RevokeInfo": revoke_info} if event == REVOKED else {}
    return make_event(event, {"OpenID": openid, "AppID": app_id, **about}, app_id=app_id, now=now)


def make_verdict(trace_id: str, suggest: str, label: int, *, app_id: str, now: int) -> dict[str, Any]:
    """Return the message of WeChat's verdict on a picture."""
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
    return make_event(CHECKED, fields, app_id=app_id, now=now)


def sign_push(
    app: Mapping[str, str], message: Mapping[str, Any], *, mode: Mode, format: Format, timestamp: str, nonce: str
) -> SignedPush:
    """Return the signed request for an app. `app` has the fields of the apps in `APPS`."""
    body = _write(message, format)
    query = {"timestamp": timestamp, "nonce": nonce, "openid": str(message.get("FromUserName", ""))}
    query["signature"] = push_signature(app["push_token"], timestamp, nonce)
    if mode == "aes":
        encrypted = encrypt(body, key=app["push_aes_key"], app_id=app["app_id"], random=secrets.token_hex(8).encode())
        query["encrypt_type"] = "aes"
        query["msg_signature"] = push_signature(app["push_token"], timestamp, nonce, encrypted)
        body = _write({"ToUserName": message.get("ToUserName", ""), "Encrypt": encrypted}, format)
    return SignedPush(query, body, "application/json" if format == "json" else "text/xml")


def push_signature(*parts: str) -> str:
    """Return WeChat's signature of these parts, one of which is the token."""
    return sha1("".join(sorted(parts)).encode(), usedforsecurity=False).hexdigest()


def encrypt(message: bytes, *, key: str, app_id: str, random: bytes) -> str:
    """Encrypt a message like WeChat. `key` is the EncodingAESKey, and `random` has 16 bytes."""
    aes_key = b64decode(key + "=")
    plain = random + len(message).to_bytes(4, "big") + message + app_id.encode()
    padding = _BLOCK_BYTES - len(plain) % _BLOCK_BYTES
    encryptor = Cipher(AES256(aes_key), CBC(aes_key[:16])).encryptor()
    return b64encode(encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()).decode()


@dataclass
class PushSender:
    """Sends messages to the URLs of the apps, over `transport` instead of HTTP if there is one."""

    clock: Callable[[], float]
    service_url: str
    push_url_of: Callable[[str], str | None]
    """A function that returns the URL of an app; None for the service's own."""
    transport: httpx.AsyncBaseTransport | None
    wires: Wires
    pause: Callable[[float], Awaitable[None]]
    _under_way: set[asyncio.Task[None]] = field(init=False, default_factory=set)

    async def send(self, request: PushRequest, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send a message, up to three times in quick succession.

        The result contains `is_taken`, and `attempts` with the `status` and `answer` of each.

        Raises: ValueError.
        """
        attempts = [attempt async for attempt in self._attempts(request, message, AT_ONCE)]
        return {"is_taken": _is_taken(message, attempts[-1]), "attempts": attempts}

    async def send_and_repeat(self, request: PushRequest, message: Mapping[str, Any]) -> bool:
        """Send a notice about a payment, and repeat it in the background unless the first attempt is accepted."""
        attempts = self._attempts(request, message, OF_PAYMENTS)
        is_taken = _is_taken(message, await anext(attempts))
        self._continue_in_background(attempts)
        return is_taken

    def send_later(self, request: PushRequest, message: Mapping[str, Any]) -> None:
        """Send a message in the background, so that the service gets its response first."""
        self._continue_in_background(self._attempts(request, message, AT_ONCE))

    def _continue_in_background(self, attempts: AsyncIterator[object]) -> None:
        """Make the remaining attempts in a task, until one is accepted."""

        async def go_on() -> None:
            async for _ in attempts:
                pass

        task = asyncio.create_task(go_on(), name="message push")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _attempts(
        self, request: PushRequest, message: Mapping[str, Any], pauses: Sequence[float]
    ) -> AsyncIterator[dict[str, Any]]:
        """Send a message until it is accepted, or the pauses are used up."""
        for repetition, seconds in enumerate((0, *pauses)):
            if seconds:
                await self.pause(seconds)
            if "RetryTimes" in message:
                message = {**message, "RetryTimes": repetition}
            attempt = await self._attempt(request, message)
            yield attempt
            if _is_taken(message, attempt):
                return

    async def _attempt(self, request: PushRequest, message: Mapping[str, Any]) -> dict[str, Any]:
        """Sign a message and send it. Raises: ValueError."""
        app = BY_ID[request.app_id]
        mode: Mode = request.mode or ("aes" if "push_aes_key" in app else "plain")
        if mode == "aes" and "push_aes_key" not in app:
            raise ValueError("mode: this app has no push_aes_key")
        timestamp, nonce = str(int(self.clock())), str(secrets.randbelow(2**31))
        signed = sign_push(app, message, mode=mode, format=request.format, timestamp=timestamp, nonce=nonce)
        to_service = self.service_url + _SERVICE_PATH + request.app_id
        url = httpx.URL(request.url or self.push_url_of(request.app_id) or to_service)
        with self.wires.noted("weChatToService", "POST", url.path, {}, message) as outcome:
            try:
                async with (
                    asyncio.timeout(ATTEMPT_TIMEOUT_SECONDS),
                    httpx.AsyncClient(transport=self.transport, trust_env=False) as client,
                ):
                    headers = {"Content-Type": signed.content_type}
                    target = url.copy_merge_params(signed.query)
                    answer = await client.post(target, content=signed.body, headers=headers)
                outcome |= {"status": answer.status_code, "answer": answer.text[:_MAX_ANSWER]}
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as exc:
                outcome |= {"status": None, "answer": type(exc).__name__}
        return dict(outcome)


def _is_taken(message: Mapping[str, Any], attempt: Mapping[str, Any]) -> bool:
    if message["Event"] in (DELIVER, REFUNDED):
        return attempt["status"] == 200 and _PAYMENT_TAKEN.search(attempt["answer"]) is not None
    return attempt == {"status": 200, "answer": "success"}


def _write(fields: Mapping[str, Any], format: Format) -> bytes:
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
    return str(value) if isinstance(value, int) else f"<![CDATA[{value}]]>"
