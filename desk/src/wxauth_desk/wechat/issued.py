"""The codes, tokens and session_keys that the simulated WeChat issues, and the functions that sign with such keys.

Each `clock` in this module returns seconds since the epoch.
"""

import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha1
from typing import Any, Final, Generic, TypeVar

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from pydantic_core import to_json

from wxauth_desk.bounded import BoundedDict
from wxauth_desk.wechat.api_calls import CallRefused, require
from wxauth_desk.wechat.beijing_time import DAY_SECONDS, day_of
from wxauth_desk.wechat.controls import CodeRequest, PhoneCodeRequest
from wxauth_desk.wechat.errcodes import Errcode
from wxauth_desk.wechat.people import openid_prefix

# `wx.login` codes, codes of the phone button, and authorization codes of a service account last this long.
CODE_LIFETIME_SECONDS: Final = 300.0
LONG_CODE_LIFETIME_SECONDS: Final = 600.0  # of an authorization code of a website app or a mobile app
_ACCESS_TOKEN_LIFETIME_SECONDS: Final = 7200.0
OVERLAP_SECONDS: Final = 300.0  # how long an access token is still valid, at most, after the next one was issued
_FORCED_PAUSE_SECONDS: Final = 30.0  # between two uses of `force_refresh`
_FORCED_A_DAY: Final = 20
# This is an assumption: WeChat documents no lifetime, only that frequent use extends it.
_SESSION_KEY_LIFETIME_SECONDS: Final = 3.0 * DAY_SECONDS

_MAX_CODES: Final = 100_000
MAX_TOKENS: Final = 1000  # of an app
MAX_SESSION_KEYS: Final = 100_000
_MAX_GRANTS: Final = 1000
# An expired code is still stored, because WeChat distinguishes it from a code that never existed.
_EXPIRED_CODE_SECONDS: Final = 600.0
_ACTIVE_SECONDS: Final = 2 * 3600.0  # how long WeChat counts a person as active after a login


AnyCodeRequest = TypeVar("AnyCodeRequest", CodeRequest, PhoneCodeRequest)


@dataclass(slots=True)
class _Code(Generic[AnyCodeRequest]):
    request: AnyCodeRequest
    expires_at: float
    busy: int  # further exchanges that fail with the errcode -1 (busy)
    is_used: bool = False


class Codes(Generic[AnyCodeRequest]):
    """The codes of one kind (login codes, or codes of the phone button), with the requests for which they were made."""

    def __init__(self, clock: Callable[[], float], *, errcode_of_another_app: int) -> None:
        self._clock = clock
        self._errcode_of_another_app = errcode_of_another_app
        self._codes: BoundedDict[str, _Code[AnyCodeRequest]] = BoundedDict(_MAX_CODES)

    def make(self, request: AnyCodeRequest, *, lifetime_seconds: float = CODE_LIFETIME_SECONDS) -> str:
        now = self._clock()
        self._forget_expired(now)
        code = "0" + secrets.token_hex(16)[:31]  # 32 characters, the first of which is 0, as in WeChat's codes
        self._codes[code] = _Code(request, now + lifetime_seconds, busy=request.busy)
        return code

    def __contains__(self, code: str) -> bool:
        return code in self._codes

    def made_for(self, code: str) -> AnyCodeRequest | None:
        """Return the request that a code was made for; None if the code was never made, or has been forgotten."""
        return self._codes[code].request if code in self._codes else None

    def spend(self, text: str, app_id: str, *, errcode_of_expired: int) -> AnyCodeRequest:
        """Use up a stored code, and return its request. An exchange by another app uses up the code, too.

        An exchange that fails with the errcode -1 (busy) uses up the code only if `busy_burns` is set.
        """
        code = self._codes[text]
        require(self._clock() < code.expires_at, errcode_of_expired)
        require(not code.is_used, Errcode.USED_CODE)
        if code.busy > 0:
            code.busy -= 1
            code.is_used = code.request.busy_burns
            raise CallRefused(Errcode.BUSY)
        code.is_used = True
        require(code.request.app_id == app_id, self._errcode_of_another_app)
        return code.request

    def _forget_expired(self, now: float) -> None:
        # The codes are in the order in which they were made, so a code that lasts longer delays the removal of the
        # codes after it by some minutes.
        while self._codes:
            oldest = next(iter(self._codes))
            if now < self._codes[oldest].expires_at + _EXPIRED_CODE_SECONDS:
                return
            del self._codes[oldest]


@dataclass(slots=True)
class _AccessToken:
    expires_at: float
    is_ended: bool = False  # before its expiry


class AccessTokens:
    """The access tokens of an app, which WeChat issues through two interfaces.

    `hand_out_stable_token` returns the tokens of `stable_token`, and `issue_token` returns the tokens of the older
    interface, `token`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens: BoundedDict[str, _AccessToken] = BoundedDict(MAX_TOKENS)
        self._stable_token = ""  # empty if there is none, or if it has been ended
        self._older_token = ""
        self._forced_at: list[float] = []  # on the day of the last use

    def hand_out_stable_token(self, *, force: bool) -> dict[str, Any]:
        """Return the current token, or a new one. With `force`, end all earlier tokens first."""
        now = self._clock()
        if force:
            self._admit_forced(now)
            self.end_all()
        token = self._tokens.get(self._stable_token)
        if token is None or now >= token.expires_at - OVERLAP_SECONDS:
            self._stable_token, token = self._add(now)
        return {"access_token": self._stable_token, "expires_in": int(token.expires_at - now)}

    def issue_token(self) -> dict[str, Any]:
        """Return a new token of the older interface. Its previous token ends soon, and all other tokens stay valid."""
        now = self._clock()
        previous = self._tokens.get(self._older_token)
        if previous is not None:
            previous.expires_at = min(previous.expires_at, now + OVERLAP_SECONDS)
        self._older_token, _ = self._add(now)
        return {"access_token": self._older_token, "expires_in": int(_ACCESS_TOKEN_LIFETIME_SECONDS)}

    def end_all(self) -> None:
        """End all tokens, as a `force_refresh` or a new app secret does."""
        for token in self._tokens.values():
            token.is_ended = True
        self._stable_token = ""

    def check(self, text: str) -> None:
        """Refuse a token that is unknown, ended or expired."""
        token = self._tokens.get(text)
        if token is None:
            raise CallRefused(Errcode.UNKNOWN_ACCESS_TOKEN)
        require(not token.is_ended, Errcode.WRONG_ACCESS_TOKEN)
        require(self._clock() < token.expires_at, Errcode.EXPIRED_ACCESS_TOKEN)

    def __contains__(self, text: str) -> bool:
        return text in self._tokens

    def _add(self, now: float) -> tuple[str, _AccessToken]:
        # The token has 515 characters, because WeChat asks callers to leave room for at least 512.
        text = "88_" + secrets.token_urlsafe(384)
        self._tokens[text] = _AccessToken(expires_at=now + _ACCESS_TOKEN_LIFETIME_SECONDS)
        return text, self._tokens[text]

    def _admit_forced(self, now: float) -> None:
        if self._forced_at:
            require(now - self._forced_at[-1] >= _FORCED_PAUSE_SECONDS, Errcode.TOO_FREQUENT)
        today = [at for at in self._forced_at if day_of(at) == day_of(now)]
        require(len(today) < _FORCED_A_DAY, Errcode.USED_UP_QUOTA)
        self._forced_at = [*today, now]


@dataclass(frozen=True, slots=True)
class Grant:
    """The permissions that a person has granted on WeChat's page, or in a mobile app."""

    app_id: str
    person: str
    ids: dict[str, Any]  # `openid`, and `unionid` if the app learns it
    scope: str
    # The access token expires at this time. Refresh tokens do not expire here, although WeChat's expire after 30 days.
    expires_at: float = 0


class Grants:
    """The access and refresh tokens that are issued for codes of WeChat's pages and of the SDK for mobile apps."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._access: BoundedDict[str, Grant] = BoundedDict(_MAX_GRANTS)
        self._refresh: BoundedDict[str, Grant] = BoundedDict(_MAX_GRANTS)

    def issue(self, grant: Grant, *, refresh_token: str | None = None) -> dict[str, Any]:
        """Issue an access token, and a refresh token if none is given, as fields of WeChat's response."""
        if refresh_token is None:
            refresh_token = secrets.token_urlsafe(64)
        access_token = secrets.token_urlsafe(64)
        self._access[access_token] = replace(grant, expires_at=self._clock() + _ACCESS_TOKEN_LIFETIME_SECONDS)
        self._refresh[refresh_token] = grant
        return {
            "access_token": access_token,
            "expires_in": int(_ACCESS_TOKEN_LIFETIME_SECONDS),
            "refresh_token": refresh_token,
        }

    def of_access_token(self, token: str, openid: str) -> Grant:
        require(token, Errcode.MISSING_ACCESS_TOKEN)
        if (grant := self._access.get(token)) is None:
            raise CallRefused(Errcode.WRONG_ACCESS_TOKEN)
        require(self._clock() < grant.expires_at, Errcode.EXPIRED_ACCESS_TOKEN)
        require(openid == grant.ids["openid"], Errcode.WRONG_OPENID)
        return grant

    def of_refresh_token(self, token: str, app_id: str) -> Grant:
        require(token, Errcode.MISSING_REFRESH_TOKEN)
        grant = self._refresh.get(token)
        if grant is None or grant.app_id != app_id:
            raise CallRefused(Errcode.WRONG_REFRESH_TOKEN)
        return grant


@dataclass(slots=True)
class _IssuedKey:
    person: str
    session_key: str
    expires_at: float
    logged_in_at: float


class IssuedSessionKeys:
    """The session_keys by openid, and the time of each person's last login."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._issued: BoundedDict[str, _IssuedKey] = BoundedDict(MAX_SESSION_KEYS)
        # The keys of codes are derived from it.
        self._secret = secrets.token_bytes(16)

    def of_code(self, code: str) -> str:
        """Return the session_key that a login with this code creates.

        The key is derived from the code, because the phone has the key as soon as it has the code.
        """
        return b64encode(hmac.digest(self._secret, code.encode(), "sha256")[:16]).decode()

    def store(self, openid: str, person: str, session_key: str | None = None) -> str:
        """Store the session_key of a new login, and return it. The previous key no longer works."""
        now = self._clock()
        self._issued[openid] = _IssuedKey(
            person, session_key or random_16_bytes(), now + _SESSION_KEY_LIFETIME_SECONDS, now
        )
        return self._issued[openid].session_key

    def current(self, openid: str) -> str | None:
        """Return the current key; None if there is none, or if it has expired."""
        issued = self._issued.get(openid)
        return issued.session_key if issued is not None and self._clock() < issued.expires_at else None

    def reset(self, openid: str) -> str:
        """Replace a person's key, and return the new key, which expires when the previous one would have expired."""
        self._issued[openid].session_key = random_16_bytes()
        return self._issued[openid].session_key

    def active_person(self, openid: str, app_id: str) -> str:
        """Return the person with this openid, who must have logged in to the app within the last two hours."""
        require(openid.startswith("o"), Errcode.WRONG_OPENID)
        require(openid.startswith(openid_prefix(app_id)), Errcode.OPENID_OF_ANOTHER)
        issued = self._issued.get(openid)
        if issued is None or self._clock() - issued.logged_in_at >= _ACTIVE_SECONDS:
            raise CallRefused(Errcode.INACTIVE_PERSON)
        return issued.person

    def is_signed(self, openid: str, signature: str, data: str = "") -> bool:
        """Return whether the signature is the HMAC-SHA256 of the data, keyed with the current key's base64 text."""
        key = self.current(openid)
        return key is not None and is_hmac(signature, key, data)


def seal(key: str, data: dict[str, Any], *, watermark: dict[str, Any]) -> dict[str, Any]:
    """Return data as `wx` returns it to a page: as signed JSON, and encrypted together with the watermark.

    `key` is the session_key in base64. AES-128-CBC encrypts with the decoded key, and the signature covers the JSON
    and the key's base64 text.
    """
    raw, iv = to_json(data), secrets.token_bytes(16)
    padder = PKCS7(128).padder()
    padded = padder.update(to_json({"watermark": watermark, **data})) + padder.finalize()
    encryptor = Cipher(algorithms.AES(b64decode(key)), modes.CBC(iv)).encryptor()
    encrypted = encryptor.update(padded) + encryptor.finalize()
    return {
        "rawData": raw.decode(),
        "signature": sha1(raw + key.encode(), usedforsecurity=False).hexdigest(),
        "encryptedData": b64encode(encrypted).decode(),
        "iv": b64encode(iv).decode(),
    }


def is_hmac(signature: str, key: str, data: str) -> bool:
    """Return whether the signature is the data's HMAC-SHA256 with this key, in hexadecimal and lower case."""
    expected = hmac.digest(key.encode(), data.encode(), "sha256").hex()
    return hmac.compare_digest(expected.encode(), signature.encode())


def random_16_bytes() -> str:
    """Return 16 random bytes in base64."""
    return b64encode(secrets.token_bytes(16)).decode()
