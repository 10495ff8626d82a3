"""Face verification in the simulated WeChat, which begins and ends on the phone, and whose result the service reads."""

import secrets
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Self

from wxauth_desk.wechat.api_calls import Answer, Call, ok
from wxauth_desk.wechat.calls import CallRefused, require, text_in
from wxauth_desk.wechat.controls import Account, FaceRequest
from wxauth_desk.wechat.issued import IssuedSessionKeys

_LIFETIME: Final = 3600
"""The time, in seconds, after which a verification is forgotten."""
REMEMBERED_FACES: Final = 1000
"""The largest number of verifications that are stored. If there are more, the oldest one is forgotten."""
_CERT: Final = ("cert_type", "cert_name", "cert_no")
_NO_RESULT_YET: Final = 90004


@dataclass(frozen=True, slots=True)
class _Question:
    """The subject of a verification. The request for the result must repeat it."""

    out_seq_no: str
    cert_hash: str
    openid: str

    @classmethod
    def to_begin(cls, values: Mapping[str, Any]) -> Self:
        """Return the question in the body of getverifyid, which contains the certificate. Raises: CallRefused."""
        given = values.get("cert_info")
        cert = {name: text_in(given, name) for name in _CERT} if isinstance(given, dict) else {}
        out_seq_no = text_in(values, "out_seq_no")
        require(cert and all(cert.values()) and cert["cert_type"] == "IDENTITY_CARD" and out_seq_no, 47001)
        encoded = "&".join(f"{name}={b64encode(value.encode()).decode()}" for name, value in cert.items())
        return cls(out_seq_no, sha256(encoded.encode()).hexdigest(), text_in(values, "openid"))

    @classmethod
    def to_read(cls, values: Mapping[str, Any]) -> Self:
        """Return the question in the body of queryverifyinfo. Raises: CallRefused."""
        return cls(text_in(values, "out_seq_no"), text_in(values, "cert_hash"), text_in(values, "openid"))


@dataclass
class _Face:
    question: _Question
    ends_at: int
    verify_ret: int = _NO_RESULT_YET


@dataclass
class Faces:
    """The latest verifications by verify_id, the oldest first. The clock returns seconds since the epoch."""

    session_keys: IssuedSessionKeys
    clock: Callable[[], int]
    _faces: OrderedDict[str, _Face] = field(init=False, default_factory=OrderedDict)

    def begin(self, call: Call, account: Account) -> Answer:
        """Answer getverifyid. Raises: CallRefused."""
        question = _Question.to_begin(call.json)
        self.session_keys.active_person(question.openid, account.app_id)
        verify_id = secrets.token_urlsafe(48)
        self._faces[verify_id] = _Face(question, self.clock() + _LIFETIME)
        if len(self._faces) > REMEMBERED_FACES:
            self._faces.popitem(last=False)
        return ok(verify_id=verify_id, expires_in=_LIFETIME)

    def read_result(self, call: Call, account: Account) -> Answer:
        """Answer queryverifyinfo. Raises: CallRefused."""
        face = self._find(text_in(call.json, "verify_id"))
        if face is None or face.question != _Question.to_read(call.json):
            raise CallRefused(47001)
        return ok(verify_ret=face.verify_ret)

    def end(self, request: FaceRequest) -> None:
        """End a verification on the phone. Raises: ValueError."""
        face = self._find(request.verify_id)
        if face is None:
            raise ValueError("verify_id: must be one that getverifyid has given within the hour")
        face.verify_ret = request.verify_ret

    def _find(self, verify_id: str) -> _Face | None:
        face = self._faces.get(verify_id)
        return face if face is not None and self.clock() < face.ends_at else None
