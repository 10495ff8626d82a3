"""The issuer's documents: its metadata, and the JWK set with its public keys."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from wxauth_guard.keys import VerificationKey, verification_keys
from wxauth_guard.proxies import Proxy, proxy_for
from wxauth_guard.urls import is_http_url, is_loopback, is_secure

if TYPE_CHECKING or find_spec("httpx") is not None:
    import httpx as httpx
else:  # the successor of httpx, with the same names. If the service uses MCP's SDK, only httpx2 might be installed.
    import httpx2 as httpx

METADATA_PATH: Final = "/.well-known/oauth-authorization-server"  # RFC 8414, section 3
FETCH_TIMEOUT: Final = 5.0  # seconds, for reading both documents
# This share of the timeout is below 1, so that a failure to connect is reported as such, before the timeout ends the
# whole fetch.
CONNECT_SHARE: Final = 0.8
STALE_IF_ERROR: Final = 86400.0  # seconds for which keys are used while the issuer is unavailable (as in RFC 5861)
MAX_DOCUMENT: Final = 256 * 1024  # bytes
DEFAULT_MAX_AGE: Final = 300.0  # seconds, if the response names no max-age
# Even after a response with `max-age=0`, not every token may cause a fetch.
_MIN_MAX_AGE: Final = 1.0

_MAX_SHOWN: Final = 200  # characters of another issuer's URL
# Such a path cannot lead out of the URL to which it is appended, as one with `..` could.
_PATH_BELOW: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")
_MAX_AGE_DIRECTIVE: Final = re.compile(r'(?:^|[\s,])max-age\s*=\s*"?(\d{1,9})', re.IGNORECASE)
# If a proxy has joined several headers, the first one counts.
_AGE_HEADER: Final = re.compile(r"(\d{1,9})\s*(?:,|$)", re.ASCII)


class Unreadable(Exception):
    """The issuer's keys could not be read. The message appears in responses, so it must not contain a secret."""


@dataclass(frozen=True)
class KeySet:
    """The keys of an issuer by their ids, as one fetch read them. Times are in seconds, by the timer."""

    keys: Mapping[str, VerificationKey]
    read_at: float
    max_age: float


class Issuer:
    """An issuer whose documents are read over HTTP. For the arguments, see `RemoteKeys`."""

    def __init__(
        self,
        url: str,
        *,
        internal_url: str | None,
        timer: Callable[[], float],
        timeout: float,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        if not (_is_plain_url(url) and is_secure(url)):
            raise ValueError(
                "issuer must be an https URL, or http on loopback, without user, query, fragment or a slash at the end"
                f": {_origin_of(url)} {_fault_of(url)}"
            )
        if internal_url is not None and not _is_plain_url(internal_url):
            raise ValueError(
                "internal_url must be an http or https URL without user, query, fragment or a slash at the end"
            )
        self.url = url
        self.internal_url = internal_url
        self._is_on_loopback = is_loopback(urlsplit(url).hostname)
        self._timer = timer
        self._timeout = timeout
        self._ssl_context = ssl_context

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """The context with the certificates to trust. By default, it is created when it is first used."""
        if self._ssl_context is None:
            self._ssl_context = httpx.create_ssl_context()
        return self._ssl_context

    async def read_keys(self) -> KeySet:
        """Read the metadata and the JWK set, within the timeout. `reason_of` explains every exception."""
        ssl_context = self.ssl_context
        # httpx imports forty modules when it creates its first transport. This transport is not used. It is created
        # only so that these imports are finished before the timeout begins.
        httpx.AsyncHTTPTransport(verify=ssl_context)
        return await asyncio.wait_for(self._fetch(ssl_context), self._timeout)

    def reason_of(self, error: Exception, *, timeout: float | None = None) -> str:
        """Return the reason why this error prevented the guard from reading the keys, or from asking wxauth.

        Responses contain this reason, so it names no hosts, except in the URLs of issuers. `timeout` is the limit that
        the request had, by default that of reading the keys.
        """
        reason = self._reason_without_proxy(error, timeout or self._timeout)
        proxy = self.proxy_for(self.url)
        if proxy is not None and isinstance(error, httpx.TransportError):
            return f"{reason} (by the proxy of {proxy.variable})"
        return reason

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy for a document of an issuer that is neither on this machine nor read at an internal URL."""
        # `proxy_for` is called for every issuer, because it warns of values that cannot be used.
        proxy = proxy_for(url)
        is_nearby = self.internal_url is not None or self._is_on_loopback
        return None if is_nearby else proxy

    def _reason_without_proxy(self, error: Exception, timeout: float) -> str:
        if isinstance(error, Unreadable):
            return str(error)
        for cause in causes_of(error):
            if isinstance(cause, socket.gaierror):
                return f"the host's name could not be resolved: {cause.strerror}"
            if isinstance(cause, ssl.SSLCertVerificationError):
                # The part after the comma contains the host.
                return f"TLS failed: {cause.verify_message.partition(',')[0]}"
            if isinstance(cause, ssl.SSLError):
                return f"TLS failed: {cause.reason}"
            if isinstance(cause, OSError) and cause.errno is not None and isinstance(error, httpx.ConnectError):
                return f"no connection: {os.strerror(cause.errno)}"  # the error's own text contains the address
        if isinstance(error, httpx.ConnectTimeout):
            return f"no connection within {timeout * CONNECT_SHARE:g} s ({type(error).__name__})"
        # Before Python 3.11, asyncio.TimeoutError is not TimeoutError.
        if isinstance(error, (httpx.TimeoutException, asyncio.TimeoutError)):
            return f"no answer within {timeout:g} s ({type(error).__name__})"
        if isinstance(error, httpx.NetworkError):
            return f"no connection: {type(error).__name__}"
        return type(error).__name__

    async def _fetch(self, ssl_context: ssl.SSLContext) -> KeySet:
        metadata, _headers = await self._get_json((self.internal_url or self.url) + METADATA_PATH, ssl_context)
        issuer = metadata.get("issuer")
        if issuer != self.url:
            raise Unreadable(f"the metadata names another issuer, {_shown(issuer)}, in place of {self.url!a}")
        jwks, headers = await self._get_json(self._jwks_url(metadata.get("jwks_uri")), ssl_context)
        members = jwks.get("keys")
        if not isinstance(members, list):
            raise Unreadable("the JWK set has no list of keys")
        keys = verification_keys(members)
        if not keys:  # for example, if a gateway returns such a set during maintenance. The keys in memory stay in use.
            raise Unreadable("the JWK set has no usable key")
        return KeySet(keys, read_at=self._timer(), max_age=_max_age(headers))

    async def _get_json(self, url: str, ssl_context: ssl.SSLContext) -> tuple[dict[str, Any], httpx.Headers]:
        # The body is read with `aiter_raw`, which does not decompress, because a few compressed bytes could decompress
        # to more than MAX_DOCUMENT. Therefore, the request asks for a response that is not compressed, and a compressed
        # response is refused as not JSON.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        proxy = self.proxy_for(url)
        async with (
            httpx.AsyncClient(
                verify=ssl_context,
                timeout=httpx.Timeout(self._timeout, connect=self._timeout * CONNECT_SHARE),
                follow_redirects=False,
                trust_env=False,
                proxy=None if proxy is None else proxy.url,
            ) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise Unreadable(f"status {response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_DOCUMENT:
                    raise Unreadable("the document is too large")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise Unreadable("not a JSON object")
        return document, response.headers

    def _jwks_url(self, jwks_uri: object) -> str:
        if self.internal_url is None:
            if isinstance(jwks_uri, str) and self._is_as_secure(jwks_uri):
                return jwks_uri
            raise Unreadable("the metadata's jwks_uri is missing or not https")
        if isinstance(jwks_uri, str) and jwks_uri.startswith(self.url):
            path = jwks_uri.removeprefix(self.url)
            if _PATH_BELOW.fullmatch(path):
                return self.internal_url + path
        raise Unreadable("the metadata's jwks_uri is not below the issuer")

    def _is_as_secure(self, url: str) -> bool:
        # Plain http to loopback is for development. The metadata of another machine must not direct the guard to it.
        return is_secure(url) and (self._is_on_loopback or urlsplit(url).scheme == "https")


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error itself, then its causes."""
    while error is not None:
        yield error
        exceptions = getattr(error, "exceptions", ())
        if exceptions:  # If a connection fails, there is one for each address of the host.
            yield from causes_of(exceptions[0])
        error = error.__cause__ or error.__context__


def _shown(issuer: object) -> str:
    """Return another issuer's URL without the parts that might be secret: before an @, and from a ? or # on."""
    plain = re.split(r"[?#]", str(issuer).rpartition("@")[2])[0]
    return f"{plain[:_MAX_SHOWN]!a}"


def _max_age(headers: httpx.Headers) -> float:
    match = _MAX_AGE_DIRECTIVE.search(headers.get("cache-control", ""))
    if match is None:
        return DEFAULT_MAX_AGE
    age = _AGE_HEADER.match(headers.get("age", ""))
    remaining = float(match[1]) - (float(age[1]) if age else 0.0)  # RFC 9111, section 4.2
    return min(max(remaining, _MIN_MAX_AGE), STALE_IF_ERROR)


def _origin_of(url: str) -> str:
    """Return only the scheme, host and port of a wrong URL, because the other parts might contain a secret."""
    match = re.match(r"https?://[\w.-]+(:\d+)?(?=[/?#]|$)", url, re.ASCII)
    return match[0] if match else "this one"


def _fault_of(url: str) -> str:
    faults = (
        (r"[?#]", "has a query or a fragment"),
        (r"@", "has a user"),
        (r"/$", "has a slash at the end"),
        (r"^(?!https?://)", "does not begin with https://"),
        (r"^http://", "is plain http to another machine"),
    )
    return next((fault for pattern, fault in faults if re.search(pattern, url)), "is no URL")


def _is_plain_url(url: str) -> bool:
    """Return whether this http or https URL has at most host, port and path, and no slash at the end."""
    return is_http_url(url) and not re.search(r"[\s?#@\\]|/$", url)
