"""The messages that WeChat pushes to the service, and their signatures.

WeChat's plain signature of a message covers the token, timestamp and nonce, but not the message, and a handshake has
the same kind of signature. Therefore wxauth accepts a signature only for some minutes, and the caller must bind it to
one message. The signature of an encrypted message covers the message.

Sources: WeChat's mini-program guide, "消息推送" (signatures, encryption) and "安全指引" (the events, `RevokeInfo`), and
WeChat's pages "授权变更" of service accounts, website apps and mobile apps (the codes of these kinds of apps).
"""

import hmac
import re
from base64 import b64decode
from codecs import BOM_UTF8
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha1, sha256
from io import StringIO
from typing import Any, Final

# Only the error is imported from the standard library. The parser is defusedxml's.
from xml.etree.ElementTree import ParseError

from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from defusedxml.ElementTree import iterparse
from pydantic import SecretStr
from pydantic_core import to_json

from wxauth.errors import InvalidSignature
from wxauth.settings.apps import App, AppKind
from wxauth.wechat.received import BLOCK_BYTES, decrypted, read_json, text_of
from wxauth_guard.errors import FieldError, InvalidRequest

_TIMESTAMP: Final = re.compile("[1-9][0-9]{9}")  # WeChat writes ten digits, which suffice from 2001 to 2286
_OPENID_OR_NONCE: Final = re.compile(r"[!-~]{1,128}")
# WeChat signs a message when it sends it, and resends within seconds.
MAX_TIMESTAMP_DIFFERENCE: Final = timedelta(minutes=5)
# In the plaintext of a message, these parts come before the message itself.
_RANDOM_BYTES: Final = 16
_LENGTH_BYTES: Final = 4
_PADDED_TO_BITS: Final = 32 * 8  # WeChat pads to blocks of 32 bytes, though AES has blocks of 16
# WeChat's messages have a depth of up to four.
_MAX_XML_DEPTH: Final = 16
# A text with more `<` or `=` is refused, because whoever has seen the query of a message can send another message with
# it for some minutes. A real message has ten elements, and perhaps a few of these characters in its texts.
_MAX_XML_PARTS: Final = 1000

_DATA_REVOKED: Final = "user_authorization_revoke"
# WeChat considers the user's name or picture risky, and does not say which of them.
_PROFILE_RISKY: Final = "user_info_modified"
_ACCOUNT_CLOSED: Final = "user_authorization_cancellation"
# The user leaves the app, so the whole identity must be erased.
_IDENTITY: Final = "identity"
_IN_OPEN_PLATFORM: Final[Mapping[str, Collection[str]]] = {"301": [_IDENTITY]}
# By kind of app and code of `RevokeInfo`, these are the user's fields, or `_IDENTITY`.
_WITHDRAWN_BY_CODE: Final[Mapping[str, Mapping[str, Collection[str]]]] = {
    "mini_program": {
        # wxauth stores none of this data: addresses, invoices, places, sports, microphone, camera, albums, Bluetooth,
        # calendar, contacts, files, and so on.
        **dict.fromkeys(("1", "2", "3", "4", "5", "7", "12", "13", "14", "15", "16", "18"), ()),
        "6": ["nickname", "avatar_url"],
        "8": ["phone"],
        "19": ["nickname"],  # the nickname chosen with <input type="nickname">
        "20": ["avatar_url"],  # the picture chosen with <button open-type="chooseAvatar">
    },
    "official_account": {
        # wxauth stores none of this data: address, invoices, cards, microphone, place, pictures.
        **dict.fromkeys(("201", "202", "203", "204", "206", "207"), ()),
        "205": ["nickname", "avatar_url"],
    },
    "website": _IN_OPEN_PLATFORM,
    "mobile_app": _IN_OPEN_PLATFORM,
}
_WITHDRAWABLE_FIELDS: Final = ("nickname", "avatar_url", "phone")

_CUSTOMER_CHAT_OPENED: Final = "user_enter_tempsession"
_PAYMENT_PREFIX: Final = "xpay_"
_MAX_LOGGED_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class PushSignature:
    """A plain signature of WeChat, and the message or handshake to which it belongs."""

    # Several pairs of timestamp and nonce may share a digest, because WeChat joins them before it signs them.
    digest: bytes
    message_digest: bytes | None  # None for a handshake


class MessageKind(StrEnum):
    """Metrics count the messages of each kind."""

    WITHDRAWAL = "withdrawal"
    PAYMENT = "payment"
    CUSTOMER_SERVICE = "customer_service"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class WeChatMessage:
    """A message from WeChat, decrypted if it was encrypted."""

    app_id: str
    app_kind: AppKind
    fields: Mapping[str, Any]
    is_readable: bool  # a JSON object, or XML that `_xml_fields` accepts; otherwise, there are no fields
    signature: PushSignature
    was_encrypted: bool  # only then the signature covers the content

    @property
    def event(self) -> str:
        """The name of the event in lower case, or an empty text if the message is not an event."""
        return text_of(self.fields.get("Event")).lower()

    @property
    def name(self) -> str:
        """The field `Event` or, if there is none, `MsgType`, in a form for the log."""
        return _for_log(text_of(self.fields.get("Event")) or text_of(self.fields.get("MsgType")))

    @property
    def revoked_codes(self) -> frozenset[str]:
        """The codes of the data whose use the user no longer permits.

        WeChat documents a text with one code. A number, a list, or a text with several codes works, too.
        """
        revoked = self.fields.get("RevokeInfo")
        values = revoked if isinstance(revoked, list) else [revoked]
        return frozenset(code for value in values for code in re.findall("[0-9]+", text_of(value)))

    @property
    def unknown_code(self) -> str | None:
        """The field `RevokeInfo` in a form for the log, if no code in it is known for this kind of app."""
        if self.event != _DATA_REVOKED or not self.revoked_codes.isdisjoint(_WITHDRAWN_BY_CODE[self.app_kind]):
            return None
        return _for_log(str(self.fields.get("RevokeInfo", "")))

    @property
    def kind_if_ignored(self) -> MessageKind:
        """The kind under which metrics count this message, if wxauth ignores it."""
        message_type = text_of(self.fields.get("MsgType")).lower()
        if message_type not in ("", "event") or self.event == _CUSTOMER_CHAT_OPENED:
            return MessageKind.CUSTOMER_SERVICE
        return MessageKind.PAYMENT if self.event.startswith(_PAYMENT_PREFIX) else MessageKind.OTHER


class WithdrawalKind(StrEnum):
    """The log uses these names for what a user has withdrawn."""

    DATA = "data"
    RISKY_PROFILE = "risky profile"
    IDENTITY = "identity"
    ACCOUNT = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """The data of a user that wxauth must erase because of a message."""

    openid: str
    kind: WithdrawalKind
    fields: tuple[str, ...] = ()
    digest: bytes  # the same for all deliveries of a message that contains its time


def check_signature(
    app: App, query: Mapping[str, str], *, name: str = "signature", encrypted: str = "", now: datetime
) -> None:
    """Check the signature in the parameter `name`, and the age of `timestamp`. The app must have a push_token.

    The signature covers `timestamp`, `nonce` and `encrypted`. If `encrypted` is empty, it is the plain signature,
    which WeChat sends in every mode.

    Raises: InvalidSignature.
    """
    timestamp, nonce = query.get("timestamp", ""), query.get("nonce", "")
    expected = sha1(_signed_text(app, timestamp, nonce, encrypted).encode()).hexdigest()  # noqa: S324 - WeChat's choice
    is_equal = hmac.compare_digest(expected.encode(), query.get(name, "").encode())
    # An attacker who does not know the token could extend a text that was signed with SHA-1. But such an extension
    # inserts padding that is never printable, so the forms of timestamp and nonce exclude it.
    is_well_formed = _TIMESTAMP.fullmatch(timestamp) is not None and _OPENID_OR_NONCE.fullmatch(nonce) is not None
    if not is_equal or not is_well_formed:
        raise InvalidSignature(f"{name} is not that of this app's push_token")
    if abs(now.timestamp() - int(timestamp)) > MAX_TIMESTAMP_DIFFERENCE.total_seconds():
        raise InvalidSignature("the timestamp is more than five minutes from this server's time")


def read_handshake(app: App, query: Mapping[str, str], *, now: datetime) -> PushSignature:
    """Check and return the signature of a handshake, which verifies that the URL belongs to the app."""
    check_signature(app, query, now=now)
    return _signature(app, query, None)


def make_handshake(app: App, *, nonce: str, echostr: str, now: datetime) -> tuple[Mapping[str, str], PushSignature]:
    """Build the query of a handshake as WeChat does, and its signature."""
    timestamp = str(int(now.timestamp()))
    signature = sha1(_signed_text(app, timestamp, nonce).encode()).hexdigest()  # noqa: S324 - WeChat's choice
    query = {"signature": signature, "timestamp": timestamp, "nonce": nonce, "echostr": echostr}
    return query, _signature(app, query, None)


def read_message(app: App, query: Mapping[str, str], body: bytes, *, now: datetime) -> WeChatMessage:
    """Verify and decrypt a message. It may be JSON or XML, whatever its Content-Type is.

    The caller must have checked the query's plain signature. If the app has a push_aes_key, the message must be
    encrypted, and this function checks the `msg_signature`.

    Raises: InvalidSignature.
    """
    message = body
    if app.push_aes_key is not None:
        encrypted = _encrypted_in(body)
        check_signature(app, query, name="msg_signature", encrypted=encrypted, now=now)
        message = _decrypt(encrypted, aes_key=app.push_aes_key, app_id=app.app_id)
    fields = _fields_or_none(message)
    return WeChatMessage(
        app_id=app.app_id,
        app_kind=app.kind,
        fields=fields or {},
        is_readable=fields is not None,
        # Only the decrypted message has the same digest at each delivery, because WeChat may encrypt it again.
        signature=_signature(app, query, message),
        was_encrypted=app.push_aes_key is not None,
    )


def withdrawal_in(message: WeChatMessage) -> Withdrawal | None:
    """Return the withdrawal in a message, or None if the message withdraws no data that wxauth stores.

    Raises: InvalidRequest, if the message names no user; InvalidSignature, if it is encrypted, but the app has no
        key.
    """
    fields = message.fields
    if "Encrypt" in fields and fields.keys().isdisjoint(("Event", "MsgType")):
        raise InvalidSignature("the message is encrypted, but this app has no push_aes_key")
    kind, fields_to_clear = _withdrawn_by(message)
    if kind is None:
        return None
    openid = text_of(fields.get("OpenID")) or text_of(fields.get("FromUserName"))
    if not _OPENID_OR_NONCE.fullmatch(openid):
        raise InvalidRequest("the message doesn't specify a user", errors=[FieldError("OpenID", "Field required")])
    # According to WeChat's documentation, the user and the time identify an event. If the time is missing, wxauth uses
    # the signature in place of the time.
    time_or_signature = text_of(fields.get("CreateTime")) or message.signature.digest.hex()
    return Withdrawal(
        openid=openid,
        kind=kind,
        fields=tuple(field for field in _WITHDRAWABLE_FIELDS if field in fields_to_clear),
        digest=_digest_of(message.app_id, message.event, openid, time_or_signature, *sorted(message.revoked_codes)),
    )


def _withdrawn_by(message: WeChatMessage) -> tuple[WithdrawalKind | None, Collection[str]]:
    if message.event == _ACCOUNT_CLOSED:
        return WithdrawalKind.ACCOUNT, ()
    if message.event == _PROFILE_RISKY:
        return WithdrawalKind.RISKY_PROFILE, ("nickname", "avatar_url")
    if message.event != _DATA_REVOKED:
        return None, ()
    by_code = _WITHDRAWN_BY_CODE[message.app_kind]
    withdrawn = {name for code in message.revoked_codes for name in by_code.get(code, ())}
    if _IDENTITY in withdrawn:
        return WithdrawalKind.IDENTITY, ()
    return (WithdrawalKind.DATA if withdrawn else None), withdrawn


def _signature(app: App, query: Mapping[str, str], message: bytes | None) -> PushSignature:
    # The digest covers the joined text, as WeChat signs it. If the text is split differently into timestamp and nonce,
    # the signature is the same, and must not count as a new one.
    digest = _digest_of(app.app_id, _signed_text(app, query["timestamp"], query["nonce"]))
    return PushSignature(digest, None if message is None else sha256(message).digest())


def _signed_text(app: App, *texts: str) -> str:
    assert app.push_token is not None  # the callers check this, or the app has a `push_forward`, which requires it
    return "".join(sorted([app.push_token.get_secret_value(), *texts]))


def _encrypted_in(body: bytes) -> str:
    fields = _fields_or_none(body) or {}
    encrypted = text_of(fields.get("Encrypt"))
    if not encrypted:
        raise InvalidSignature("this app has a push_aes_key, so it accepts only encrypted messages")
    return encrypted


def _decrypt(encrypted: str, *, aes_key: SecretStr, app_id: str) -> bytes:
    """The plaintext consists of 16 random bytes, the message's length, the message, and the app_id."""
    key = b64decode(aes_key.get_secret_value() + "=")  # WeChat's EncodingAESKey lacks the padding
    # WeChat uses the beginning of the key as the iv.
    iv = key[:BLOCK_BYTES]
    try:
        plain = decrypted(b64decode(encrypted, validate=True), AES256(key), iv=iv, padded_to_bits=_PADDED_TO_BITS)
    except ValueError:
        raise InvalidSignature("this app's push_aes_key doesn't decrypt the message") from None
    begin = _RANDOM_BYTES + _LENGTH_BYTES
    end = begin + int.from_bytes(plain[_RANDOM_BYTES:begin], "big")
    if plain[end:] != app_id.encode():
        raise InvalidSignature("the message isn't for this app")
    return plain[begin:end]


def _fields_or_none(body: bytes) -> dict[str, Any] | None:
    try:
        content = body.removeprefix(BOM_UTF8).strip()
        fields = _xml_fields(content.decode()) if content.startswith(b"<") else read_json(content)
    except (ValueError, ParseError):  # defusedxml raises a ValueError for a DTD
        return None
    if not isinstance(fields, dict):
        return None
    # In WeChat's documentation, some names begin with a space. Such a field is also returned under the name without the
    # space, unless another field has that name.
    stripped = {name.strip(): value for name, value in fields.items()}
    return {**stripped, **fields}


def _xml_fields(text: str) -> dict[str, str]:
    """The texts of several elements with the same name are joined with spaces."""
    if max(text.count("<"), text.count("=")) > _MAX_XML_PARTS:
        raise ValueError("too many elements")
    depth = 0
    fields: dict[str, str] = {}
    # The parser reports each element while it reads, so that a message that is nested too deeply is refused halfway.
    for kind, element in iterparse(StringIO(text), ("start", "end"), forbid_dtd=True):
        depth += 1 if kind == "start" else -1
        if depth > _MAX_XML_DEPTH:
            raise ValueError("nested too deeply")
        if kind == "end" and depth == 1:  # a child of the root has ended
            # `text_of` removes the space before the first text.
            fields[element.tag] = " ".join([fields.get(element.tag, ""), *element.itertext()])
    return fields


def _for_log(text: str) -> str:
    return "".join(filter(str.isprintable, text))[:_MAX_LOGGED_LENGTH]


def _digest_of(*parts: str) -> bytes:
    # JSON keeps the parts apart, so that other parts have another digest even if the joined texts are the same.
    return sha256(to_json(parts)).digest()
