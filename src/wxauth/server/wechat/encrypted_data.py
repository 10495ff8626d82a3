"""`encryptedData`: data about a user that the mini-program gets from WeChat, encrypted with the session_key.

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
"""AES's block size, and the length of the key and of the iv."""
MAX_AGE: Final = timedelta(days=1)
MAX_AHEAD: Final = timedelta(minutes=5)
"""How much WeChat's clock may be ahead of ours."""

# Repairs base64 that has passed through forms, URLs or text fields.
_MENDED: Final = str.maketrans({" ": "+", "-": "+", "_": "/", "\r": None, "\n": None})


class WrongWatermark(Exception):
    """The data is another app's, too old, or from the future. The message says which."""


def base64_bytes(text: str) -> bytes:
    """Decode base64 in either alphabet, with or without padding, line breaks, and ' ' for '+'. Raises: ValueError."""
    unpadded = text.translate(_MENDED).rstrip("=")
    return b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)


def open_encrypted_data(encrypted_data: bytes, *, iv: bytes, session_key: bytes) -> dict[str, Any] | None:
    """Decrypt to a JSON object; None if that fails. The session_key is base64 text, as WeChat sends it.

    Valid padding alone proves nothing: one in 256 wrong keys yields it. But a wrong key never yields a JSON object.
    """
    try:
        key = base64_bytes(session_key.decode())
        decryptor, unpadder = Cipher(AES128(key), CBC(iv)).decryptor(), PKCS7(AES128.block_size).unpadder()
        padded = decryptor.update(encrypted_data) + decryptor.finalize()
        opened = from_json(unpadder.update(padded) + unpadder.finalize(), allow_inf_nan=False)
    except ValueError:  # the same result for every failure, so that it does not reveal whether the padding was valid
        return None
    return opened if isinstance(opened, dict) else None


def check_watermark(opened: Mapping[str, Any], *, app_id: str, now: datetime) -> None:
    """Check that WeChat made the data for this app, and within a day. Raises: WrongWatermark."""
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
