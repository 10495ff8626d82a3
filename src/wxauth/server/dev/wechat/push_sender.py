"""The simulated WeChat's message push: signed, encrypted and retried up to three times, as WeChat does."""

import asyncio
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Annotated, Any, Final, Literal

import httpx
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic_core import to_json

from wxauth.server.dev.wechat.controls import PersonName, SimulatedAppId
from wxauth.server.dev.wechat.people import ACCOUNT, APPS, LATER_APP

ATTEMPTS: Final = 3
RECEIVER_TIMEOUT_SECONDS: Final = 5.0
"""The time limit of an attempt."""

REVOKED: Final = "user_authorization_revoke"
CHECKED: Final = "wxa_media_check"

_PATH: Final = "/v1/wechat/push/"
_BLOCK_BYTES: Final = 32
_MAX_ANSWER: Final = 500

Mode = Literal["plain", "aes"]
Format = Literal["json", "xml"]


class PushRequest(BaseModel):
    """Body of `POST /push`: an event about a person, to be pushed."""

    model_config = ConfigDict(extra="forbid")

    person: PersonName
    app_id: SimulatedAppId = APPS[0]["app_id"]
    event: Annotated[str, StringConstraints(pattern="^[A-Za-z_]{1,64}$")] = REVOKED
    revoke_info: Annotated[str, StringConstraints(pattern="^[0-9]{1,4}$")] = "6"
    """The code for what `user_authorization_revoke` withdraws."""
    mode: Mode | None = None
    """By default `aes` for an app with a push_aes_key, `plain` for others."""
    format: Format = "json"
    url: Annotated[str, StringConstraints(pattern="^https?://[^/]")] | None = None
    """The URL to send to. By default, that of the service beside this WeChat."""


@dataclass(frozen=True, slots=True)
class SignedPush:
    """A request as WeChat sends it."""

    query: Mapping[str, str]
    body: bytes
    content_type: str


def make_message(openid: str, event: str, revoke_info: object, *, app_id: str, now: int) -> dict[str, Any]:
    """The message of an event about a person. `now` is in seconds since the epoch."""
    message = {
        "ToUserName": f"gh_{app_id[-12:]}",
        "FromUserName": f"o{app_id}-push",  # the account's own name
        "CreateTime": now,
        "MsgType": "event",
        "Event": event,
        "OpenID": openid,
        "AppID": app_id,
    }
    return {**message, "RevokeInfo": revoke_info} if event == REVOKED else message


def make_verdict(trace_id: str, suggest: str, label: int, *, app_id: str, now: int) -> dict[str, Any]:
    """The message of WeChat's verdict on a picture."""
    result = {"suggest": suggest, "label": label}
    return {
        "ToUserName": f"gh_{app_id[-12:]}",
        "FromUserName": f"o{app_id}-push",
        "CreateTime": now,
        "MsgType": "event",
        "Event": CHECKED,
        "appid": app_id,
        "trace_id": trace_id,
        "version": 2,
        "detail": [{"strategy": "content_model", "errcode": 0, **result, "prob": 90}],
        "errcode": 0,
        "errmsg": "ok",
        "result": result,
    }


def sign_push(
    app: Mapping[str, str], message: Mapping[str, Any], *, mode: Mode, format: Format, timestamp: str, nonce: str
) -> SignedPush:
    """The signed request for an app. `app` has the fields of those in `APPS`."""
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
    """WeChat's signature over these parts, one of which is the token."""
    return sha1("".join(sorted(parts)).encode(), usedforsecurity=False).hexdigest()


def encrypt(message: bytes, *, key: str, app_id: str, random: bytes) -> str:
    """Encrypt a message as WeChat does. `key` is the EncodingAESKey, `random` has 16 bytes."""
    aes_key = b64decode(key + "=")
    plain = random + len(message).to_bytes(4, "big") + message + app_id.encode()
    padding = _BLOCK_BYTES - len(plain) % _BLOCK_BYTES
    encryptor = Cipher(AES256(aes_key), CBC(aes_key[:16])).encryptor()
    return b64encode(encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()).decode()


async def deliver(
    client: httpx.AsyncClient, request: PushRequest, message: Mapping[str, Any], *, service_url: str
) -> dict[str, Any]:
    """Send a message, signed anew for each attempt, until it is accepted.

    The result has `is_taken`, and `attempts` with the `status` and `answer` of each.

    Raises: ValueError.
    """
    app = next(app for app in (*APPS, LATER_APP, ACCOUNT) if app["app_id"] == request.app_id)
    mode: Mode = request.mode or ("aes" if "push_aes_key" in app else "plain")
    if mode == "aes" and "push_aes_key" not in app:
        raise ValueError("mode: this app has no push_aes_key")
    url = request.url or service_url + _PATH + request.app_id
    timestamp = str(message["CreateTime"])
    attempts: list[dict[str, Any]] = []
    while len(attempts) < ATTEMPTS and not _is_taken(attempts):
        nonce = str(secrets.randbelow(2**31))
        signed = sign_push(app, message, mode=mode, format=request.format, timestamp=timestamp, nonce=nonce)
        attempts.append(await _attempt(client, url, signed))
    return {"is_taken": _is_taken(attempts), "attempts": attempts}


def _is_taken(attempts: Sequence[Mapping[str, Any]]) -> bool:
    return bool(attempts) and attempts[-1] == {"status": 200, "answer": "success"}


async def _attempt(client: httpx.AsyncClient, url: str, signed: SignedPush) -> dict[str, Any]:
    try:
        async with asyncio.timeout(RECEIVER_TIMEOUT_SECONDS):
            answer = await client.post(
                httpx.URL(url).copy_merge_params(signed.query),
                content=signed.body,
                headers={"Content-Type": signed.content_type},
            )
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as exc:
        return {"status": None, "answer": type(exc).__name__}
    return {"status": answer.status_code, "answer": answer.text[:_MAX_ANSWER]}


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
