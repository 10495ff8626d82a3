"""Message push: whether a request is WeChat's, and what a person withdraws by it.

WeChat's plain signature covers token, timestamp and nonce. It does not cover the message, and the handshake has the
same kind. So a signature is valid for some minutes, and the caller must check that it comes with one message alone.

Source: WeChat, mini-program guide, "消息推送" (signatures, encryption) and "安全指引" (the events, `RevokeInfo`).
"""

import hmac
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha1, sha256
from io import StringIO
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError  # the types alone; the parser is the one below

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7
from defusedxml.ElementTree import iterparse
from pydantic import SecretStr
from pydantic_core import from_json, to_json

from wxauth.errors import FieldError, InvalidRequest, InvalidSignature
from wxauth.server.core.settings import App

REVOKED: Final = "user_authorization_revoke"
"""The event of a person who withdraws some data."""
LEFT: Final = "user_authorization_cancellation"
"""The event of a person whose WeChat account is closed."""
FIELDS_OF_REVOKE_INFO: Final[Mapping[str, frozenset[str]]] = {
    "6": frozenset({"nickname", "avatar_url"}),
    "8": frozenset({"phone"}),
    "19": frozenset({"nickname"}),  # chosen by <input type="nickname">
    "20": frozenset({"avatar_url"}),  # chosen by <button open-type="chooseAvatar">
}
"""By code, the fields that are stored here. Data of the other codes (addresses, invoices, places, files...) is not."""
SIGNED_WITHIN: Final = timedelta(minutes=5)
"""How far WeChat's timestamp may be from our time. WeChat signs when it sends, and sends again within seconds."""

_FIELDS: Final = ("nickname", "avatar_url", "phone")
_MAX_XML_DEPTH: Final = 16
_MAX_XML_PARTS: Final = 1000
"""How many `<`, and how many `=`, a message may have. Anybody may send one, and an encrypted one is parsed before its
signature can be checked. A real message has ten elements, and perhaps some of these characters in its texts."""
_RANDOM_BYTES: Final = 16
_LENGTH_BYTES: Final = 4
_BLOCK_BITS: Final = 32 * 8  # WeChat pads to blocks of 32 bytes; AES's own have 16
_TIMESTAMP: Final = re.compile("[1-9][0-9]{9}")  # ten digits from 2001 to 2286; another spelling is not WeChat's
_NONCE: Final = re.compile(r"[!-~]{1,128}")
_OPENID: Final = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class Signature:
    """A timestamp and nonce that WeChat has signed, and the message that came with them."""

    digest: bytes
    """The digest of app and what was signed, which several pairs of timestamp and nonce may have in common."""
    content: bytes | None
    """The digest of the message; None for the handshake, which has none."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message from WeChat, decrypted if it was encrypted."""

    app_id: str
    text: bytes
    signature: Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """What a person withdraws."""

    openid: str
    fields: tuple[str, ...] = ()
    """The user's fields to clear: `nickname`, `avatar_url`, `phone`."""
    is_whole: bool = False
    """Whether the user is to be erased: the WeChat account is closed."""
    mark: bytes
    """Identifies the message: the same each time WeChat sends it, and different from every other message's."""


def read_handshake(app: App, query: Mapping[str, str], *, now: datetime) -> Signature:
    """The signature of a handshake, with which WeChat checks that this URL is the app's. Raises: InvalidSignature."""
    _check_signature(app, query, name="signature", now=now)
    return _signature(app, query, None)


def read_message(app: App, query: Mapping[str, str], body: bytes, *, now: datetime) -> Message:
    """Check and decrypt a message.

    Args:
        app: An app with a push_token. If it has a push_aes_key, the message must be encrypted.
        query: The parameters of the request.
        body: JSON or XML, whatever its Content-Type says.
        now: The time.

    Raises: InvalidSignature.
    """
    if app.push_aes_key is None:
        text = body
        _check_signature(app, query, name="signature", now=now)
    else:
        encrypted = _encrypted_in(body)
        _check_signature(app, query, name="msg_signature", encrypted=encrypted, now=now)
        text = _open(encrypted, aes_key=app.push_aes_key, app_id=app.app_id)
    # The digest is of the text, not of the body: WeChat may encrypt a message anew when sending it again.
    return Message(app.app_id, text, _signature(app, query, text))


def withdrawal_in(message: Message) -> Withdrawal | None:
    """What a message withdraws; None if it withdraws nothing that is stored here.

    Raises: InvalidRequest; InvalidSignature, if the message is still encrypted.
    """
    fields = _fields_in(message.text)
    if "Encrypt" in fields and "Event" not in fields:
        raise InvalidSignature("the message is encrypted, and there is no push_aes_key for this app")
    event, codes = _text(fields.get("Event")).lower(), _codes_in(fields.get("RevokeInfo"))
    withdrawn = frozenset[str]().union(*(FIELDS_OF_REVOKE_INFO.get(code, ()) for code in codes))
    if event != LEFT and not (event == REVOKED and withdrawn):
        return None
    openid = _text(fields.get("OpenID")) or _text(fields.get("FromUserName"))
    if not _OPENID.fullmatch(openid):
        raise InvalidRequest("the message names nobody", errors=[FieldError("OpenID", "Field required")])
    # WeChat itself identifies an event by person and time. If the time is missing, the signature takes its place.
    sent = _text(fields.get("CreateTime")) or message.signature.digest.hex()
    return Withdrawal(
        openid=openid,
        fields=tuple(field for field in _FIELDS if event == REVOKED and field in withdrawn),
        is_whole=event == LEFT,
        mark=_mark(message.app_id, event, openid, sent, *sorted(codes)),
    )


def _check_signature(app: App, query: Mapping[str, str], *, name: str, encrypted: str = "", now: datetime) -> None:
    """Check that the signature covers `timestamp`, `nonce` and the encrypted text, and was made just now."""
    timestamp, nonce = query.get("timestamp", ""), query.get("nonce", "")
    expected = sha1(_signed_text(app, timestamp, nonce, encrypted).encode()).hexdigest()  # noqa: S324 - WeChat's choice
    is_equal = hmac.compare_digest(expected.encode(), query.get(name, "").encode())
    # SHA-1 allows length extension without the token. But the padding that this puts in between is never printable.
    if not is_equal or not _TIMESTAMP.fullmatch(timestamp) or not _NONCE.fullmatch(nonce):
        raise InvalidSignature(f"{name} is not that of this app's push_token")
    if abs(now.timestamp() - int(timestamp)) > SIGNED_WITHIN.total_seconds():
        raise InvalidSignature("the timestamp is more than five minutes from this server's time")


def _signature(app: App, query: Mapping[str, str], text: bytes | None) -> Signature:
    # Of the joined text, as WeChat signs it. Cut elsewhere, or with timestamp and nonce in each other's place, it has
    # the same signature, and would otherwise pass for a signature that did not come before.
    digest = _mark(app.app_id, _signed_text(app, query["timestamp"], query["nonce"]))
    return Signature(digest, None if text is None else sha256(text).digest())


def _signed_text(app: App, *texts: str) -> str:
    assert app.push_token is not None
    return "".join(sorted([app.push_token.get_secret_value(), *texts]))


def _encrypted_in(body: bytes) -> str:
    try:
        encrypted = _text(_fields_in(body).get("Encrypt"))
    except InvalidRequest:
        encrypted = ""
    if not encrypted:
        raise InvalidSignature("this app has a push_aes_key, so it takes encrypted messages only")
    return encrypted


def _open(encrypted: str, *, aes_key: SecretStr, app_id: str) -> bytes:
    """Decrypt to 16 random bytes, the length, the message and the app_id; the message. Raises: InvalidSignature."""
    key = b64decode(aes_key.get_secret_value() + "=")
    decryptor, unpadder = Cipher(AES256(key), CBC(key[:16])).decryptor(), PKCS7(_BLOCK_BITS).unpadder()
    try:
        padded = decryptor.update(b64decode(encrypted, validate=True)) + decryptor.finalize()
        plain = unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        raise InvalidSignature("the message does not open with this app's push_aes_key") from None
    begin = _RANDOM_BYTES + _LENGTH_BYTES
    end = begin + int.from_bytes(plain[_RANDOM_BYTES:begin], "big")
    if plain[end:] != app_id.encode():
        raise InvalidSignature("the message is not for this app")
    return plain[begin:end]


def _fields_in(body: bytes) -> dict[str, Any]:
    """The fields of a message. Raises: InvalidRequest."""
    try:
        text = body.decode("utf-8-sig").strip()
        fields = _xml_fields(text) if text.startswith("<") else from_json(text)
    except (ValueError, ParseError):  # defusedxml raises a ValueError for what it forbids
        fields = None
    if not isinstance(fields, dict):
        raise InvalidRequest.of("body", "Neither a JSON object nor XML without a DTD")
    return fields


def _xml_fields(text: str) -> dict[str, str]:
    """The text in each element under the root. Texts of several elements with one name are joined by spaces."""
    if max(text.count("<"), text.count("=")) > _MAX_XML_PARTS:
        raise ValueError("too many elements")
    depth, root = 0, None
    for kind, element in iterparse(StringIO(text), ("start", "end"), forbid_dtd=True):
        root = element if root is None else root
        depth += 1 if kind == "start" else -1
        if depth > _MAX_XML_DEPTH:
            raise ValueError("nested too deeply")
    assert isinstance(root, Element)
    fields: dict[str, str] = {}
    for element in root:
        fields[element.tag] = " ".join([fields.get(element.tag, ""), *element.itertext()])
    return fields


def _text(value: object) -> str:
    return str(value).strip() if isinstance(value, str | int) else ""


def _codes_in(revoke_info: object) -> frozenset[str]:
    """The codes in RevokeInfo. WeChat documents one code in a string; numbers, lists and several codes are read too."""
    values = revoke_info if isinstance(revoke_info, list) else [revoke_info]
    return frozenset(code for value in values for code in re.findall("[0-9]+", _text(value)))


def _mark(*parts: str) -> bytes:
    return sha256(to_json(parts)).digest()
