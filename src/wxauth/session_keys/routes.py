"""The route `/v1/me/decrypt`, which decrypts data from WeChat with session_keys."""

from typing import Annotated, Any, Final

from fastapi import Depends
from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, Field, WithJsonSchema

from wxauth.errors import SessionKeyExpired, WrongAppKind
from wxauth.i18n import lazy_gettext as _
from wxauth.session_keys.session_keys import SessionKeys
from wxauth.users.callers import PrincipalDep
from wxauth.web.dependencies import provide
from wxauth.web.direct import Router
from wxauth.web.schemas import EXAMPLE_APP_ID, body_like
from wxauth.wechat.received import BLOCK_BYTES, base64_bytes
from wxauth_guard.errors import InvalidRequest

router = Router("me")

SessionKeysDep = Annotated[SessionKeys, Depends(provide(SessionKeys))]

_MAX_ENCRYPTED_DATA: Final = 32 * 1024  # characters of base64; thirty days of a user's steps take 2,000
# This failure is only for the API's documentation. `check_watermark` raises its own.
_WRONG_WATERMARK: Final = InvalidRequest.of("encrypted_data", "The watermark belongs to another app")


def _from_base64(value: object) -> bytes:
    """Decode base64. If pydantic has the same rule, the error has pydantic's message."""
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")
    if len(value) > _MAX_ENCRYPTED_DATA:
        raise ValueError(f"String should have at most {_MAX_ENCRYPTED_DATA} characters")
    try:
        return base64_bytes(value)
    except ValueError:
        raise ValueError("String should be base64") from None


def _check_whole_blocks(value: bytes) -> bytes:
    if not value or len(value) % BLOCK_BYTES:
        raise ValueError(f"Must be one or more blocks of {BLOCK_BYTES} bytes")
    return value


def _check_one_block(value: bytes) -> bytes:
    if len(value) != BLOCK_BYTES:
        raise ValueError(f"Must be {BLOCK_BYTES} bytes")
    return value


_Base64 = Annotated[
    bytes, BeforeValidator(_from_base64), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]


class DecryptRequest(BaseModel):
    """The `encryptedData` and `iv` that WeChat gave the mini-program."""

    model_config = body_like({"encrypted_data": "q0EJbVMXC0kYb9rMbJcMdA==", "iv": "r7BXXKkLb8qrSNn05n0qiA=="})

    encrypted_data: Annotated[_Base64, AfterValidator(_check_whole_blocks)] = Field(
        validation_alias=AliasChoices("encrypted_data", "encryptedData"),
        description="The encrypted data. The field can also be named `encryptedData`.",
    )
    iv: Annotated[_Base64, AfterValidator(_check_one_block)] = Field(
        description=f"The initialization vector, {BLOCK_BYTES} bytes."
    )


class DecryptedAnswer(BaseModel):
    """The response with the decrypted data."""

    data: dict[str, Any] = Field(
        description="WeChat's object unchanged, with `watermark`.",
        examples=[
            {
                "stepInfoList": [{"timestamp": 1795104000, "step": 8848}],
                "watermark": {"timestamp": 1795161600, "appid": EXAMPLE_APP_ID},
            }
        ],
    )


@router.post(
    "/v1/me/decrypt",
    summary=_("Decrypt encryptedData"),
    failures=[_WRONG_WATERMARK, WrongAppKind, SessionKeyExpired],
)
async def decrypt(principal: PrincipalDep, body: DecryptRequest, session_keys: SessionKeysDep) -> DecryptedAnswer:
    """Verify and decrypt the `encryptedData` and `iv` that WeChat gave the mini-program.

    A login can change WeChat's session_key. After `session_key_expired`, log in again, and then let the user tap again,
    because data that WeChat encrypted before the login can no longer be decrypted. The data's watermark must name the
    session's app, and must be neither more than a day old nor more than five minutes in the future.
    """
    data = await session_keys.decrypt(principal, encrypted_data=body.encrypted_data, iv=body.iv)
    return DecryptedAnswer(data=data)
