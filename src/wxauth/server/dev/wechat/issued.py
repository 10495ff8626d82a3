"""Single-use codes of `wx.login` and of the phone button."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from wxauth.server.dev.wechat.controls import CodeRequest, PhoneCodeRequest
from wxauth.server.dev.wechat.refused_calls import CallRefused

CODE_LIFETIME: Final = 300.0
"""Seconds. Also of a code for a service account."""
LONG_CODE_LIFETIME: Final = 600.0
"""Seconds. Of a code for a website app or a mobile app."""

AnyCodeRequest = TypeVar("AnyCodeRequest", CodeRequest, PhoneCodeRequest)


@dataclass(slots=True)
class _Code(Generic[AnyCodeRequest]):
    request: AnyCodeRequest
    expires_at: float
    busy: int
    is_used: bool = False


class Codes(Generic[AnyCodeRequest]):
    """Codes of one kind, and what each can be exchanged for.

    Args:
        clock: Seconds since the epoch.
        errcode_when_used: The errcode for a second use.
        errcode_of_another_app: The errcode for another app.
    """

    def __init__(self, clock: Callable[[], float], *, errcode_when_used: int, errcode_of_another_app: int) -> None:
        self._clock = clock
        self._when_used = errcode_when_used
        self._of_another_app = errcode_of_another_app
        self._codes: dict[str, _Code[AnyCodeRequest]] = {}

    def make(self, request: AnyCodeRequest, *, lasts: float = CODE_LIFETIME) -> str:
        """A new code, valid for so many seconds."""
        self._drop_expired()
        code = "0" + secrets.token_hex(16)[:31]
        self._codes[code] = _Code(request, self._clock() + lasts, busy=request.busy)
        return code

    def __contains__(self, code: str) -> bool:
        """Whether this code was made and has not expired yet."""
        return code in self._codes

    def spend(self, text: str, app_id: str) -> AnyCodeRequest:
        """Exchange a code, once. Raises: CallRefused."""
        code = self._codes[text]
        if code.expires_at <= self._clock():
            raise CallRefused(40029)
        if code.is_used:
            raise CallRefused(self._when_used)
        if code.busy > 0:
            code.busy -= 1
            code.is_used = code.request.busy_burns
            raise CallRefused(-1)
        code.is_used = True  # a failed exchange spends the code, too
        if code.request.app_id != app_id:
            raise CallRefused(self._of_another_app)
        return code.request

    def _drop_expired(self) -> None:
        # In the order in which they were made: one that lasts longer keeps those behind it for some minutes more.
        while self._codes and next(iter(self._codes.values())).expires_at <= self._clock():
            del self._codes[next(iter(self._codes))]
