"""The issuer's public keys in a sibling: found by metadata, cached, and kept through an outage of the issuer."""

import asyncio
import json
import logging
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from wxauth.errors import KeysUnavailable
from wxauth.guard.urls import is_loopback, is_secure
from wxauth.tokens.keys import VerificationKey, verification_keys

METADATA_PATH: Final = "/.well-known/oauth-authorization-server"
UNKNOWN_KEY_PAUSE: Final = 10.0
"""Seconds between two fetches because of an unknown `kid`."""
RETRY_PAUSE: Final = 1.0
"""Seconds between two tries while there is no key at all."""
KEPT_FOR: Final = 86400.0
"""Seconds for which keys are used while the issuer cannot be read."""
KEPT_UNASKED: Final = 300.0
"""Seconds beyond their max-age. If keys are older, because nobody asked for any, they are read again before use."""
FETCH_TIMEOUT: Final = 5.0
MAX_DOCUMENT: Final = 256 * 1024
DEFAULT_MAX_AGE: Final = 300.0

_MAX_TOLD = 200
_log = logging.getLogger(__name__)
_MAX_AGE = re.compile(r'(?:^|[\s,])max-age\s*=\s*"?(\d{1,9})', re.IGNORECASE)
_AGE = re.compile(r"(\d{1,9})\s*(?:,|$)", re.ASCII)


class _Unreadable(Exception):
    """The issuer's keys could not be read. The text says why, and is shown in answers too."""


@dataclass(frozen=True, slots=True)
class _KeySet:
    keys: Mapping[str, VerificationKey]
    read_at: float
    max_age: float


class RemoteKeys:
    """A `KeySource` that reads the issuer's metadata and JWK set.

    Args:
        issuer: Its metadata must name exactly this issuer (RFC 8414, section 3.3).
        timer: Seconds on a clock that never jumps.
        timeout: Seconds for reading both documents.
        ssl_context: The certificates to trust. By default, those that httpx trusts.

    Raises: ValueError, for an issuer that is neither https nor http on loopback, or has more than host and path.
    """

    def __init__(
        self,
        issuer: str,
        *,
        timer: Callable[[], float] = time.monotonic,
        timeout: float = FETCH_TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        _check_issuer(issuer)
        self._issuer = issuer
        self._is_on_loopback = is_loopback(urlsplit(issuer).hostname)
        self._timer = timer
        self._timeout = timeout
        self._key_set: _KeySet | None = None
        self._reading: asyncio.Task[None] | None = None
        self._next_refresh = 0.0
        self._next_for_unknown = 0.0
        self._failed_at = float("-inf")
        self._failure = ""
        self._ssl = ssl_context

    async def find(self, kid: str) -> VerificationKey | None:
        """The issuer's key of that id, or None.

        Waits for the issuer only at first, if nobody has asked for long, or if the id is unknown.

        Raises: KeysUnavailable, if there is no key, or the keys are a day old.
        """
        now = self._timer()
        keys = self._usable_keys(now)
        if not keys or now >= self._next_refresh + KEPT_UNASKED:
            return (await self._awaited_keys(now)).get(kid)
        if kid in keys:
            if now >= self._next_refresh:
                self._start_reading()
            return keys[kid]
        if not self._is_reading():
            if now < self._next_for_unknown:
                return None
            self._next_for_unknown = now + UNKNOWN_KEY_PAUSE
        await self._read_once()
        return self._usable_keys(now).get(kid)

    def _usable_keys(self, now: float) -> Mapping[str, VerificationKey]:
        if self._key_set is None or now - self._key_set.read_at > KEPT_FOR:
            return {}
        return self._key_set.keys

    async def _awaited_keys(self, now: float) -> Mapping[str, VerificationKey]:
        if now - self._failed_at >= RETRY_PAUSE:
            await self._read_once()
        keys = self._usable_keys(self._timer())
        if not keys:
            raise KeysUnavailable(f"the issuer's keys cannot be read: {self._failure}")
        return keys

    async def _read_once(self) -> None:
        # Shielded: a request that is cancelled must not cancel the reading that others wait for.
        await asyncio.shield(self._start_reading())

    def _start_reading(self) -> asyncio.Task[None]:
        if self._reading is None or not self._is_reading():
            self._reading = asyncio.create_task(self._read(), name=f"read the keys of {self._issuer}")
        return self._reading

    def _is_reading(self) -> bool:
        # Another event loop's reading cannot be waited for in this one.
        reading = self._reading
        return reading is not None and not reading.done() and reading.get_loop() is asyncio.get_running_loop()

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                key_set = await self._fetch()
        except _Unreadable as exc:
            self._note_failure(str(exc))
        except Exception as exc:  # no network, no answer in time, not JSON: after any failure the present keys are kept
            self._note_failure(type(exc).__name__)
        else:
            self._key_set = key_set
            self._next_refresh = key_set.read_at + key_set.max_age
            if not key_set.keys:
                self._note_failure("the JWK set has no usable key")

    def _note_failure(self, reason: str) -> None:
        _log.warning("The keys of %s could not be read: %s", self._issuer, reason)
        self._failure = reason
        self._failed_at = self._timer()
        self._next_refresh = self._failed_at + UNKNOWN_KEY_PAUSE

    async def _fetch(self) -> _KeySet:
        if self._ssl is None:
            self._ssl = httpx.create_ssl_context()
        async with httpx.AsyncClient(
            verify=self._ssl, timeout=self._timeout, follow_redirects=False, trust_env=not self._is_on_loopback
        ) as client:
            metadata, _ = await _get_json(client, self._issuer + METADATA_PATH)
            if (named := metadata.get("issuer")) != self._issuer:
                other = str(named).rpartition("@")[2]  # a password may stand before the @
                _log.warning("The metadata of %s names another issuer: %a", self._issuer, other[:_MAX_TOLD])
                raise _Unreadable("the metadata names another issuer")
            jwks_uri = metadata.get("jwks_uri")
            if not isinstance(jwks_uri, str) or not self._is_as_secure(jwks_uri):
                raise _Unreadable("the metadata's jwks_uri is missing or not https")
            jwks, headers = await _get_json(client, jwks_uri)
        documents = jwks.get("keys")
        if not isinstance(documents, list):
            raise _Unreadable("the JWK set has no list of keys")
        return _KeySet(verification_keys(documents), read_at=self._timer(), max_age=_max_age(headers))

    def _is_as_secure(self, url: str) -> bool:
        # Plain http to loopback is for development. An issuer elsewhere must not send us to our own machine.
        return is_secure(url) and (self._is_on_loopback or urlsplit(url).scheme == "https")


def _max_age(headers: httpx.Headers) -> float:
    """Seconds for which an answer is still fresh (RFC 9111, section 4.2), within bounds."""
    match = _MAX_AGE.search(headers.get("cache-control", ""))
    if match is None:
        return DEFAULT_MAX_AGE
    age = _AGE.match(headers.get("age", ""))
    return min(max(float(match[1]) - (float(age[1]) if age else 0.0), 1.0), KEPT_FOR)


async def _get_json(client: httpx.AsyncClient, url: str) -> tuple[dict[str, Any], httpx.Headers]:
    # Not compressed, so that the bytes counted are the bytes held: a few compressed bytes can unfold to very many.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with client.stream("GET", url, headers=headers) as response:
        if response.status_code != httpx.codes.OK:
            raise _Unreadable(f"status {response.status_code}")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_DOCUMENT:
                raise _Unreadable("the document is too large")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise _Unreadable("not a JSON object")
    return document, response.headers


def _check_issuer(issuer: str) -> None:
    try:
        parts = urlsplit(issuer)
        is_good = is_secure(issuer) and parts.port != 0
    except ValueError:
        is_good = False
    # The message does not repeat the URL: with a user in it, it has a password, too.
    if not is_good or re.search(r"[\s?#@\\]|/$", issuer):
        raise ValueError(
            "issuer must be an https URL, or http on loopback, without user, query, fragment or a slash at the end"
        )
