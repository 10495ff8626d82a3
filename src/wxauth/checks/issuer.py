"""The checks of the public documents that siblings (services that verify wxauth's tokens) and clients need.

Siblings must find the stored keys at the issuer's URL, and clients must find the metadata of each resource.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence, Set as AbstractSet
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from pydantic_core import from_json

from wxauth.checks.result import CheckResult, Findings, bad, good, note
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.keys.models import StoredSigningKey
from wxauth.outbound.connecting import STRICT_FORM_CODES, refusal_of
from wxauth.terminal import TextError
from wxauth_guard.bearer import METADATA_PATH as RESOURCE_METADATA_PATH
from wxauth_guard.issuer import MAX_DOCUMENT, METADATA_PATH
from wxauth_guard.keys import verification_keys
from wxauth_guard.proxies import Proxy, proxy_for
from wxauth_guard.urls import is_loopback, is_secure

ReadKeys = Callable[[], Awaitable[Sequence[StoredSigningKey]]]
"""A function that reads the stored signing keys once more. It may raise StorageUnavailable."""

_NAME: Final = "issuer"
_CONNECT_TIMEOUT_SECONDS: Final = 3.0
_ISSUER_SETTING: Final = "WXAUTH_ISSUER"
_LONGEST_URL: Final = 200
"""The maximum number of characters that a result shows of a URL in a response."""
_BAD_GATEWAY: Final = frozenset({502, 503, 504})
"""The statuses that a proxy returns if the service behind it does not respond."""


class _Fault(TextError):
    """A fault that makes a document unusable. The text explains the fault."""


class _NotRunning(_Fault):
    """The fault that no service responds, which is normal before wxauth has started."""


class _Wrong(_Fault):
    """Any other fault, for example an invalid certificate. The text gives the reason and usually the fix."""


async def check_issuer(
    issuer: str, findings: Findings, *, now: datetime, patience: float, read_keys: ReadKeys | None = None
) -> AsyncGenerator[CheckResult, None]:
    """Check whether siblings find the stored keys at the issuer's URL.

    All requests together may take `patience` seconds, and `_CONNECT_TIMEOUT_SECONDS` more for connecting. If the issuer
    publishes none of the keys in `findings` that have begun to sign, the check reads the stored keys once more with
    `read_keys`, if this function is given.

    Raises: StorageUnavailable, from `read_keys`; ValueError, if the URL of the keys is malformed.
    """
    yield await _judge_issuer(issuer, findings.signing_keys, read_keys=read_keys, now=now, patience=patience)


async def _judge_issuer(
    issuer: str, keys: Sequence[StoredSigningKey] | None, *, read_keys: ReadKeys | None, now: datetime, patience: float
) -> CheckResult:
    """Return the result for the keys that the issuer publishes.

    `keys` are the stored keys; None if they could not be read. The other parameters are those of `check_issuer`, and so
    are the errors.
    """
    try:
        async with asyncio.timeout(patience + _CONNECT_TIMEOUT_SECONDS):
            kids = await _published_kids(issuer, httpx.Timeout(patience, connect=_CONNECT_TIMEOUT_SECONDS))
    except _NotRunning as exc:
        text = _("{fault}. This is normal before 'wxauth serve' has started, but not afterwards", fault=exc.text)
        return note(_NAME, text)
    except _Wrong as exc:
        return bad(_NAME, exc.text)
    except TimeoutError:
        text = _(
            "{issuer} responds too slowly. Check the service's log, and check the proxy in front of the service",
            issuer=issuer,
        )
        return bad(_NAME, text)
    if keys is None:
        text = _("{issuer} responds. Without the database, the keys that it returns can't be checked", issuer=issuer)
        return note(_NAME, text)
    # Keys that do not sign yet do not count, because a cache between client and server may contain an older document.
    signing = {key.kid for key in keys if key.activates_at <= now}
    # A service that has just started may have stored its first key after `keys` were read, and even after `now`. For
    # this reason, keys that begin to sign after `now` count here.
    if signing.isdisjoint(kids) and read_keys is not None:
        signing = {key.kid for key in await read_keys()}
    return _judge_kids(issuer, signing, kids)


def _judge_kids(issuer: str, signing: AbstractSet[str], published: AbstractSet[str]) -> CheckResult:
    """Compare the ids of the stored keys in `signing` with the ids of the published keys, and return the result."""
    if signing.isdisjoint(published):
        text = _(
            "{issuer} returns none of the stored keys, because the service there uses another database. "
            "Compare WXAUTH_DATABASE_URL in both places",
            issuer=issuer,
        )
        return bad(_NAME, text)
    missing = signing - published
    if missing:
        text = _(
            "{issuer} lacks {n} of {total} stored keys, so your services reject tokens that these keys "
            "signed. Check whether the service there logs signing_keys_not_opened, and whether a cache keeps "
            "its jwks_uri for more than five minutes",
            issuer=issuer,
            n=len(missing),
            total=len(signing),
        )
        return bad(_NAME, text)
    if is_loopback(urlsplit(issuer).hostname):
        text = _(
            "{issuer} returns the stored keys, but only this machine can reach this address. Set "
            "WXAUTH_ISSUER to an address that phones and WeChat can reach",
            issuer=issuer,
        )
        return note(_NAME, text)
    return good(_NAME, _("{issuer} returns the stored keys", issuer=issuer))


async def _published_kids(issuer: str, time_limits: httpx.Timeout) -> set[str]:
    """Return the ids of the keys that the issuer publishes. Also check that no cache stores the issuer's responses.

    The function requests the documents in the same way as the guard, so that it finds the faults that a sibling would
    meet.

    Raises: _NotRunning, if no service responds; _Wrong, if siblings cannot use the documents, or if a cache stores
        responses; ValueError, if the URL of the keys is malformed.
    """
    async with _client(issuer, time_limits) as client:
        metadata = await _get(client, issuer + METADATA_PATH, setting=_ISSUER_SETTING)
        jwks_uri = _jwks_uri_in(metadata, issuer)
        async with _client(jwks_uri, time_limits) as jwks_client:
            jwks = (await _get(jwks_client, jwks_uri, setting=_ISSUER_SETTING)).get("keys")
        if not isinstance(jwks, list):
            raise _Wrong(_("{url} has no list of keys. Another service responds at this address", url=jwks_uri))
        await _check_for_cache(client, issuer)
    return set(verification_keys(jwks))


def _jwks_uri_in(metadata: Mapping[str, Any], issuer: str) -> str:
    """Return the URL of the keys in the metadata of this issuer.

    Raises: _Wrong, if the metadata names another issuer, or no URL from which the guard would read keys; ValueError, if
        the URL is malformed.
    """
    reported = metadata.get("issuer")
    if reported != issuer:
        # The part before @ may contain a password.
        other = reported.rpartition("@")[2][:_LONGEST_URL] if isinstance(reported, str) else "none"
        text = _(
            "{issuer} reports the issuer {other!r}. WXAUTH_ISSUER must be the same in both places",
            issuer=issuer,
            other=other,
        )
        raise _Wrong(text)
    jwks_uri = metadata.get("jwks_uri")
    if not isinstance(jwks_uri, str) or not _may_have_keys(jwks_uri, issuer):
        text = _("{issuer} has no jwks_uri with https. Another service responds at this address", issuer=issuer)
        raise _Wrong(text)
    return jwks_uri


def _may_have_keys(jwks_uri: str, issuer: str) -> bool:
    """Return whether the guard would read keys from this URL.

    The URL must use https, or both the URL and the issuer must be on loopback.

    Raises: ValueError, if the URL is malformed.
    """
    return is_secure(jwks_uri) and (jwks_uri.startswith("https:") or is_loopback(urlsplit(issuer).hostname))


def _client(url: str, time_limits: httpx.Timeout) -> httpx.AsyncClient:
    """Return a client that connects to the host of a URL in the same way as the guard.

    Raises: _Wrong, if SSL_CERT_FILE is not a certificate file.
    """
    proxy = _proxy_for(url)
    try:
        tls = httpx.create_ssl_context()
    except OSError as exc:
        raise _Wrong(_("SSL_CERT_FILE isn't a certificate file: {reason}", reason=exc.strerror)) from exc
    return httpx.AsyncClient(
        verify=tls, timeout=time_limits, trust_env=False, proxy=None if proxy is None else proxy.url
    )


def _proxy_for(url: str) -> Proxy | None:
    """Return the proxy for a URL; None if there is no proxy, or if the URL is on loopback."""
    return None if is_loopback(urlsplit(url).hostname) else proxy_for(url)


async def _check_for_cache(client: httpx.AsyncClient, issuer: str) -> None:
    """Send up to two requests to check that no cache stores responses. Stop after a response whose status is not 200.

    Raises: _Wrong, if a response may have been stored; _NotRunning or _Wrong, if a request fails.
    """
    url = f"{issuer}/livez"
    previous_id = ""
    for _attempt in range(2):
        try:
            async with client.stream("GET", url) as response:
                status, headers = response.status_code, response.headers
        except httpx.TransportError as exc:
            raise _fault_of(exc, url, _ISSUER_SETTING) from exc
        if status != HTTPStatus.OK:  # for example, a proxy does not forward the request
            return
        sign = _sign_of_cache(headers, previous_id)
        if sign is not None:
            text = _(
                "the response from {url} {sign}. A proxy in front of wxauth caches responses, and could return "
                "one user's data to another user. Disable this cache (proxy_cache in nginx, 缓存 in a panel or "
                "CDN)",
                url=url,
                sign=sign,
            )
            raise _Wrong(text)
        previous_id = headers.get("X-Request-ID", "")


def _sign_of_cache(headers: httpx.Headers, previous_id: str) -> Text | None:
    """Return a sign that a cache may have stored a response, as the end of a sentence; None if there is no sign.

    `previous_id` is the X-Request-ID of the previous response; an empty string if there is no previous response.
    """
    if previous_id and headers.get("X-Request-ID") == previous_id:
        return _("repeats an X-Request-ID")
    if "Age" in headers:
        return _("has an Age header")
    if "no-store" not in headers.get("Cache-Control", "").lower():
        return _("lacks Cache-Control: no-store")
    return None


async def check_resource(url: str, issuer: str, *, patience: float) -> AsyncGenerator[CheckResult, None]:
    """Check whether clients find the metadata of a resource, and this issuer in the metadata (RFC 9728).

    The request may take `patience` seconds, and `_CONNECT_TIMEOUT_SECONDS` more for connecting.
    """
    name = f"resource {url}"
    parts = urlsplit(url)
    metadata_url = f"{parts.scheme}://{parts.netloc}{RESOURCE_METADATA_PATH}{parts.path.removesuffix('/')}"
    time_limits = httpx.Timeout(patience, connect=_CONNECT_TIMEOUT_SECONDS)
    try:
        async with asyncio.timeout(patience + _CONNECT_TIMEOUT_SECONDS), _client(url, time_limits) as client:
            metadata = await _get(client, metadata_url, setting=_("the URL in WXAUTH_RESOURCES"))
    except (_Fault, TimeoutError) as exc:
        reason = exc.text if isinstance(exc, _Fault) else _("no response in time")
        text = _("{url} can't be read, so clients can't discover wxauth: {reason}", url=metadata_url, reason=reason)
        yield bad(name, text)
        return
    servers = metadata.get("authorization_servers")
    if metadata.get("resource") != url:
        text = _(
            "{url} specifies a different resource. The resource must match the spelling in WXAUTH_RESOURCES exactly",
            url=metadata_url,
        )
        yield bad(name, text)
    elif not isinstance(servers, list) or issuer not in servers:
        text = _("{url} doesn't list {issuer} in authorization_servers", url=metadata_url, issuer=issuer)
        yield bad(name, text)
    else:
        yield good(name, _("has metadata that specifies its own URL and this issuer"))


async def _get(client: httpx.AsyncClient, url: str, *, setting: Text | str) -> dict[str, Any]:
    """Return the JSON object at a URL. `setting` names the setting that a fault advises the operator to change.

    Raises: _NotRunning, if no service responds; _Wrong, for any other fault.
    """
    # As in the guard, the body is read without decompression, because a few compressed bytes could decompress to more
    # than MAX_DOCUMENT. Therefore, the request asks for a response that is not compressed.
    try:
        async with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
            _check_status(response, setting)
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_DOCUMENT:
                    raise _Wrong(_("{url} is too large. Another service responds at this address", url=url))
    except httpx.TransportError as exc:
        raise _fault_of(exc, url, setting) from exc
    try:
        document = from_json(bytes(body))
    except ValueError:
        document = None
    if not isinstance(document, dict):
        text = _(
            "{url} isn't a JSON object. Another service responds at this address, or a proxy doesn't forward "
            "the request",
            url=url,
        )
        raise _Wrong(text)
    return document


def _check_status(response: httpx.Response, setting: Text | str) -> None:
    """Check that a response has the status 200. For `setting`, see `_get`.

    Raises: _NotRunning, if a proxy cannot reach the service behind it; _Wrong, if the response has any other status.
    """
    status, url = response.status_code, response.url
    if status == HTTPStatus.OK:
        return
    if status in _BAD_GATEWAY:
        text = _(
            "{url} returns status {status}, because the proxy there can't reach the service behind it",
            url=url,
            status=status,
        )
        raise _NotRunning(text)
    if response.has_redirect_location:
        location = urlsplit(response.headers["Location"])
        target = f"{location.scheme}://{location.hostname}{location.path}" if location.hostname else location.path
        raise _Wrong(
            _(
                "{url} redirects to {where}, but services don't follow redirects. Serve the document at the "
                "first address, or set {setting} to the second address",
                url=url,
                where=target[:_LONGEST_URL],
                setting=setting,
            )
        )
    raise _Wrong(
        _(
            "{url} returns status {status}. Another service responds at this address, or the proxy there "
            "doesn't forward /.well-known/",
            url=url,
            status=status,
        )
    )


def _fault_of(exc: httpx.TransportError, url: str, setting: Text | str) -> _NotRunning | _Wrong:
    """Return the fault that explains an error of httpx.

    If the error of httpx has a cause that `_fault_of_cause` explains, the fault describes that cause. Otherwise, it
    describes the error of httpx itself. For `setting`, see `_get`.
    """
    parts = urlsplit(url)
    where: Text | str = f"{parts.scheme}://{parts.netloc}"
    proxy = _proxy_for(url)
    if proxy is not None:
        where = _("{url} (through the proxy in {variable})", url=where, variable=proxy.variable)
    cause: BaseException | None = exc
    while cause is not None:
        fault = _fault_of_cause(cause, where)
        if fault is not None:
            return fault
        cause = cause.__cause__ or cause.__context__
    kind = type(exc).__name__
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return _NotRunning(_("this machine can't connect to {where} ({kind})", where=where, kind=kind))
    if isinstance(exc, httpx.TimeoutException):
        text = _(
            "{where} accepts the connection but doesn't respond. Check the logs of the service and of the proxy",
            where=where,
        )
        return _Wrong(text)
    text = _("{where} closes the connection without a response ({kind})", where=where, kind=kind)
    if parts.scheme == "http":
        text += _(". If the address uses TLS, {setting} must begin with https", setting=setting)
    return _Wrong(text)


def _fault_of_cause(cause: BaseException, where: Text | str) -> _NotRunning | _Wrong | None:
    """Return the fault for an error of TLS, an unknown host name or a refused connection; None for other causes."""
    match cause:
        case ssl.SSLCertVerificationError():
            why = refusal_of(cause)
            if cause.verify_code not in STRICT_FORM_CODES:  # otherwise `why` already says how to fix the certificate
                why = _(
                    "{why}. Configure the proxy there to send a certificate for this name, with its complete chain",
                    why=why,
                )
            return _Wrong(_("{where} has an invalid certificate: {why}", where=where, why=why))
        case ssl.SSLWantReadError():  # TLS was only waiting for data when the time limit expired
            return None
        case ssl.SSLError():
            text = _(
                "{where} doesn't use TLS ({why}). If the address uses http, change it to https, because your "
                "services require https",
                where=where,
                why=cause.reason,
            )
            return _Wrong(text)
        case socket.gaierror():
            return _NotRunning(_("the host name of {where} doesn't resolve on this machine", where=where))
        case ConnectionRefusedError():
            return _NotRunning(_("nothing listens on {where}", where=where))
    return None
