"""Face verification in the simulated WeChat, which begins and ends on the phone, and whose result the service reads."""

import secrets
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Self

from wxauth_desk.wechat.calls import CallRefused, require, text_in
from wxauth_desk.wechat.controls import FaceRequest

FACE_LIFETIME: Final = 3600
"""The number of seconds after which a verification is forgotten."""
REMEMBERED_FACES: Final = 1000
"""The number of verifications that are stored. Beyond it, the oldest is forgotten."""
_CERT: Final = ("cert_type", "cert_name", "cert_no")
_NO_RESULT_YET: Final = 90004


@dataclass(frozen=True, slots=True)
class FaceQuestion:
    """What a verification is about. It must be repeated to learn the result."""

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
    question: FaceQuestion
    ends_at: float
    verify_ret: int = _NO_RESULT_YET


@dataclass
class Faces:
    """The latest verifications by verify_id, the oldest first. The clock returns seconds since the epoch."""

    clock: Callable[[], float]
    _faces: OrderedDict[str, _Face] = field(init=False, default_factory=OrderedDict)

    def begin(self, question: FaceQuestion) -> str:
        """Store a verification. Return its verify_id."""
        verify_id = secrets.token_urlsafe(48)
        self._faces[verify_id] = _Face(question, self.clock() + FACE_LIFETIME)
        if len(self._faces) > REMEMBERED_FACES:
            self._faces.popitem(last=False)
        return verify_id

    def end(self, request: FaceRequest) -> None:
        """End a verification on the phone. Raises: ValueError."""
        face = self._find(request.verify_id)
        if face is None:
            raise ValueError("verify_id: must be one that getverifyid has given within the hour")
        face.verify_ret = request.verify_ret

    def read_result(self, verify_id: str, question: FaceQuestion) -> int:
        """Return the verify_ret of a verification. Raises: CallRefused."""
        face = self._find(verify_id)
        if face is None or face.question != question:
            raise CallRefused(47001)
        return face.verify_ret

    def _find(self, verify_id: str) -> _Face | None:
        face = self._faces.get(verify_id)
        return face if face is not None and self.clock() < face.ends_at else None
