"""Face verification in the simulated WeChat.

A back end begins a verification, the person ends it on the phone, and the back end reads the result.
"""

import secrets
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Self

from wxauth_desk.bounded import BoundedDict
from wxauth_desk.wechat.api_calls import Answer, Call, CallRefused, ok, require, text_in
from wxauth_desk.wechat.controls import AppState, FaceRequest
from wxauth_desk.wechat.errcodes import Errcode
from wxauth_desk.wechat.issued import IssuedSessionKeys

_LIFETIME_SECONDS: Final = 3600
MAX_VERIFICATIONS: Final = 1000
_CERT_FIELDS: Final = ("cert_type", "cert_name", "cert_no")  # in the order in which WeChat hashes them
_CANCELLED: Final = 90004  # the `verify_ret` of a verification that the person has cancelled, or has not ended yet


@dataclass(frozen=True, slots=True)
class _Subject:
    """The subject of a verification, which the request for the result must name again."""

    out_seq_no: str  # given by the back end
    cert_hash: str  # the SHA-256 hash of the certificate's fields, in hexadecimal, as WeChat documents it
    openid: str

    @classmethod
    def from_getverifyid(cls, values: Mapping[str, Any]) -> Self:
        """A missing `openid` becomes an empty string, which the caller must refuse."""
        cert_info, out_seq_no = values.get("cert_info"), text_in(values, "out_seq_no")
        if not isinstance(cert_info, dict) or not out_seq_no:
            raise CallRefused(Errcode.WRONG_BODY)
        cert = {name: text_in(cert_info, name) for name in _CERT_FIELDS}
        require(all(cert.values()) and cert["cert_type"] == "IDENTITY_CARD", Errcode.WRONG_BODY)
        encoded = "&".join(f"{name}={b64encode(value.encode()).decode()}" for name, value in cert.items())
        return cls(out_seq_no, sha256(encoded.encode()).hexdigest(), text_in(values, "openid"))

    @classmethod
    def from_queryverifyinfo(cls, values: Mapping[str, Any]) -> Self:
        return cls(text_in(values, "out_seq_no"), text_in(values, "cert_hash"), text_in(values, "openid"))


@dataclass
class _Verification:
    subject: _Subject
    expires_at: int
    verify_ret: int = _CANCELLED  # as in `FaceRequest`


@dataclass
class Faces:
    session_keys: IssuedSessionKeys
    clock: Callable[[], int]
    _verifications: BoundedDict[str, _Verification] = field(
        init=False, default_factory=lambda: BoundedDict(MAX_VERIFICATIONS)
    )

    def begin(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `getverifyid`."""
        subject = _Subject.from_getverifyid(call.json)
        self.session_keys.active_person(subject.openid, account.app_id)  # refuses an inactive person
        verify_id = secrets.token_urlsafe(48)
        self._verifications[verify_id] = _Verification(subject, self.clock() + _LIFETIME_SECONDS)
        return ok(verify_id=verify_id, expires_in=_LIFETIME_SECONDS)

    def read_result(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `queryverifyinfo`."""
        values = call.json
        verification = self._find(text_in(values, "verify_id"))
        if verification is None or verification.subject != _Subject.from_queryverifyinfo(values):
            raise CallRefused(Errcode.WRONG_BODY)
        return ok(verify_ret=verification.verify_ret)

    def end(self, request: FaceRequest) -> None:
        """End a verification on the phone with this result. Raises: ValueError, if it is unknown or has expired."""
        verification = self._find(request.verify_id)
        if verification is None:
            raise ValueError("verify_id: must be one that getverifyid has given within the hour")
        verification.verify_ret = request.verify_ret

    def _find(self, verify_id: str) -> _Verification | None:
        verification = self._verifications.get(verify_id)
        return verification if verification is not None and self.clock() < verification.expires_at else None
