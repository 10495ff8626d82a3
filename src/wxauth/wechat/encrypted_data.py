"""`encryptedData`: what WeChat gives a mini-program about its user, to be opened where the session_key is.

Source: https://developers.weixin.qq.com/miniprogram/dev/framework/open-ability/signature.html
"""

from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7
from pydantic_core import from_json

BLOCK_BYTES: Final = 16
"""Of AES; also the length of the key and of the iv."""
MAX_AGE: Final = timedelta(days=1)
MAX_AHEAD: Final = timedelta(minutes=5)
"""How much WeChat's clock may be ahead of ours."""

# What becomes of base64 on its way through forms, URLs and text boxes.
_MENDED: Final = str.maketrans({" ": "+", "-": "+", "_": "/", "\r": None, "\n": None})


class WrongWatermark(Exception):
    """What was opened is another app's, or not of today; the message says which."""


def base64_bytes(text: str) -> bytes:
    """The bytes of base64: in either alphabet, padded or not, with spaces for '+', in lines. Raises: ValueError."""
    unpadded = text.translate(_MENDED).rstrip("=")
    return b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)


def open_encrypted_data(encrypted_data: bytes, *, iv: bytes, session_key: bytes) -> dict[str, Any] | None:
    """The JSON object in whole blocks, by a session_key as WeChat sends it (base64 text); None if it does not open.

    Padding alone proves nothing: of 256 wrong keys one leaves a proper one. A wrong key never leaves an object.
    """
    try:
        key = base64_bytes(session_key.decode())
        decryptor, unpadder = Cipher(AES128(key), CBC(iv)).decryptor(), PKCS7(AES128.block_size).unpadder()
        padded = decryptor.update(encrypted_data) + decryptor.finalize()
        opened = from_json(unpadder.update(padded) + unpadder.finalize(), allow_inf_nan=False)
    except ValueError:  # one answer to all of it, so that none tells what the padding was
        return None
    return opened if isinstance(opened, dict) else None


def check_watermark(opened: Mapping[str, Any], *, app_id: str, now: datetime) -> None:
    """See that WeChat made it for this app, and today. Raises: WrongWatermark."""
    match opened.get("watermark"):
        case {"appid": str(watermarked), "timestamp": int(timestamp)}:
            pass
        case _:
            raise WrongWatermark("Has no watermark")
    if watermarked != app_id:
        raise WrongWatermark("The watermark is another app's")
    age = int(now.timestamp()) - timestamp
    if age > MAX_AGE.total_seconds():
        raise WrongWatermark("The watermark is more than a day old")
    if age < -MAX_AHEAD.total_seconds():
        raise WrongWatermark("The watermark is of the future")
