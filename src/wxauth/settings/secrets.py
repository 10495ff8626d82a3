"""The types of secrets in settings. An error never contains a secret."""

import base64
from contextlib import suppress
from typing import Annotated, Final

from pydantic import Field, SecretStr

from wxauth.i18n import WrongValue, lazy_gettext as _
from wxauth.settings.types import checked, must_match

SECRET_KEY_BYTES: Final = 32
# The form of a secret for signatures, as Standard Webhooks 1.0.0 specifies it.
WEBHOOK_PREFIX: Final = "whsec_"
_MIN_WEBHOOK_KEY_BYTES: Final = 24
_MAX_WEBHOOK_KEY_BYTES: Final = 64


def secret_key_bytes(value: SecretStr) -> bytes:
    """Decode a secret key from base64 or base64url."""
    text = value.get_secret_value().translate({ord("-"): "+", ord("_"): "/"})  # base64url becomes base64
    with suppress(ValueError):
        key = base64.b64decode(text, validate=True)
        if len(key) == SECRET_KEY_BYTES:
            return key
    raise WrongValue(_("must be 32 bytes in base64. Create a key with 'wxauth secret new'"))


def webhook_secret_bytes(value: SecretStr) -> bytes:
    """Decode the key in a secret for signatures."""
    text = value.get_secret_value()
    with suppress(ValueError):
        key = base64.b64decode(text.removeprefix(WEBHOOK_PREFIX), validate=True)
        if text.startswith(WEBHOOK_PREFIX) and _MIN_WEBHOOK_KEY_BYTES <= len(key) <= _MAX_WEBHOOK_KEY_BYTES:
            return key
    raise WrongValue(_("must be whsec_ followed by 24 to 64 random bytes in base64"))


# `minLength` is only for the OpenAPI document, which does not contain the check itself.
AppSecret = Annotated[
    SecretStr,
    must_match(r"\S+", _("must not be empty or contain whitespace")),
    Field(json_schema_extra={"minLength": 1}),
]
# WeChat's page accepts only letters and digits. wxauth accepts other printable characters, too, in case WeChat does so
# one day.
PushToken = Annotated[
    SecretStr,
    must_match("[!-~]{3,32}", _("must be the Token in WeChat's message push settings (3 to 32 letters and digits)")),
]
# An EncodingAESKey is 32 bytes in base64 without the padding.
PushAesKey = Annotated[
    SecretStr,
    must_match(
        "[A-Za-z0-9+/]{43}", _("must be the EncodingAESKey in WeChat's message push settings (43 letters and digits)")
    ),
]
SecretKey = Annotated[SecretStr, checked(secret_key_bytes)]
WebhookSecret = Annotated[SecretStr, checked(webhook_secret_bytes)]
