"""Why a certificate is refused, in words for the operator."""

import ssl
from typing import Final

from wxauth.errors import Title

_NOT_OF_THE_FORM: Final = range(80, 94)
"""OpenSSL's codes with which only `VERIFY_X509_STRICT` refuses a certificate, which Python 3.13 and newer set."""


def refusal_of(exc: ssl.SSLCertVerificationError) -> Title:
    """OpenSSL's reason; and what to do about a certificate that is not of the form of RFC 5280."""
    reason = exc.verify_message
    if exc.verify_code not in _NOT_OF_THE_FORM:
        return Title(reason, reason)
    return Title(
        f"{reason}: Python 3.13 and newer require the form of RFC 5280, so its authority must issue it again",
        f"{reason}：Python 3.13 及更高版本要求证书符合 RFC 5280，须由其 CA 重新签发",
    )
