"""The check whether siblings (services that verify wxauth's tokens) find the stored keys at the issuer's URL.

A second check reads the metadata with which clients find wxauth from a resource (RFC 9728).
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence, Set as AbstractSet
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from wxauth.checks.documents import (
    CONNECT_TIMEOUT_SECONDS,
    MAX_SHOWN_URL,
    DocumentFault,
    NameUnknown,
    NotRunning,
    client_for,
    fault_of,
    get_document,
)
from wxauth.checks.result import CheckResult, Findings, bad, good, note
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.keys.models import StoredSigningKey
from wxauth_guard.bearer import RESOURCE_METADATA_PATH
from wxauth_guard.issuer import METADATA_PATH
from wxauth_guard.keys import verification_keys
from wxauth_guard.urls import is_loopback, is_secure

ReadKeys = Callable[[], Awaitable[Sequence[StoredSigningKey]]]  # may raise StorageUnavailable

_NAME: Final = "issuer"
_SETTING: Final = "WXAUTH_ISSUER"


async def check_issuer(
    issuer: str, findings: Findings, *, now: datetime, patience: float, read_keys: ReadKeys | None = None
) -> AsyncGenerator[CheckResult, None]:
    """Check whether siblings find the stored keys, and that no cache stands in front of the issuer.

    All requests together may take `patience` seconds, and `CONNECT_TIMEOUT_SECONDS` more for connecting. `read_keys`
    reads the stored keys once more.
    """
    time_limits = httpx.Timeout(patience, connect=CONNECT_TIMEOUT_SECONDS)
    try:
        async with asyncio.timeout(patience + CONNECT_TIMEOUT_SECONDS), client_for(issuer, time_limits) as client:
            kids = await _published_kids(client, issuer)
            await _check_for_cache(client, issuer)
    except (DocumentFault, TimeoutError) as exc:
        yield _judge_failure(issuer, exc, has_served=findings.has_served)
        return
    if findings.signing_keys is None:
        text = _("{issuer} responds. Without the database, the keys that it returns can't be checked", issuer=issuer)
        yield note(_NAME, text)
        return
    # Keys that do not sign yet do not count, because a cache between client and server may contain an older document.
    signing = {key.kid for key in findings.signing_keys if key.activates_at <= now}
    # A service that has just started may have stored its first key after the keys in `findings` were read, and even
    # after `now`. For this reason, keys that begin to sign after `now` count here.
    if signing.isdisjoint(kids) and read_keys is not None:
        signing = {key.kid for key in await read_keys()}
    yield _judge_kids(issuer, signing, kids)


def _judge_failure(issuer: str, failure: DocumentFault | TimeoutError, *, has_served: bool) -> CheckResult:
    match failure:
        case NameUnknown() if has_served:
            text = _("{fault}, so users can't log in. Check the name's DNS entry and WXAUTH_ISSUER", fault=failure.text)
            return bad(_NAME, text)
        case NotRunning():
            text = _(
                "{fault}. This is normal before 'wxauth serve' has started, but not afterwards", fault=failure.text
            )
            return note(_NAME, text)
        case DocumentFault():
            return bad(_NAME, failure.text)
        case TimeoutError():
            text = _(
                "{issuer} responds too slowly. Check the service's log, and check the proxy in front of the service",
                issuer=issuer,
            )
            return bad(_NAME, text)


def _judge_kids(issuer: str, signing: AbstractSet[str], published: AbstractSet[str]) -> CheckResult:
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


async def _published_kids(client: httpx.AsyncClient, issuer: str) -> set[str]:
    """Request the documents in the same way as the guard, and so find the faults that a sibling would meet."""
    metadata = await get_document(client, issuer + METADATA_PATH, setting=_SETTING)
    jwks_uri = _jwks_uri_in(metadata, issuer)
    async with client_for(jwks_uri, client.timeout) as jwks_client:
        jwks = (await get_document(jwks_client, jwks_uri, setting=_SETTING)).get("keys")
    if not isinstance(jwks, list):
        raise DocumentFault(_("{url} has no list of keys. Another service responds at this address", url=jwks_uri))
    return set(verification_keys(jwks))


def _jwks_uri_in(metadata: Mapping[str, Any], issuer: str) -> str:
    reported = metadata.get("issuer")
    if reported != issuer:
        # The part before @ may contain a password.
        other = reported.rpartition("@")[2][:MAX_SHOWN_URL] if isinstance(reported, str) else "none"
        text = _(
            "{issuer} reports the issuer {other!r}. WXAUTH_ISSUER must be the same in both places",
            issuer=issuer,
            other=other,
        )
        raise DocumentFault(text)
    jwks_uri = metadata.get("jwks_uri")
    if not isinstance(jwks_uri, str) or not _is_as_secure(jwks_uri, issuer):
        text = _("{issuer} has no jwks_uri with https. Another service responds at this address", issuer=issuer)
        raise DocumentFault(text)
    return jwks_uri


# By the same rule, the guard decides whether to read keys from this URL.
def _is_as_secure(jwks_uri: str, issuer: str) -> bool:
    return is_secure(jwks_uri) and (jwks_uri.startswith("https:") or is_loopback(urlsplit(issuer).hostname))


async def _check_for_cache(client: httpx.AsyncClient, issuer: str) -> None:
    url = f"{issuer}/livez"
    previous_id = ""
    for _attempt in range(2):
        try:
            async with client.stream("GET", url) as response:
                status, headers = response.status_code, response.headers
        except httpx.TransportError as exc:
            raise fault_of(exc, url, _SETTING) from exc
        if status != HTTPStatus.OK:  # for example, a proxy does not forward the request
            return
        evidence = _evidence_of_cache(headers, previous_id)
        if evidence is not None:
            text = _(
                "the response from {url} {sign}. A proxy in front of wxauth caches responses, and could return "
                "one user's data to another user. Disable this cache (proxy_cache in nginx, 缓存 in a panel or "
                "CDN)",
                url=url,
                sign=evidence,
            )
            raise DocumentFault(text)
        previous_id = headers.get("X-Request-ID", "")


def _evidence_of_cache(headers: httpx.Headers, previous_id: str) -> Text | None:
    """Return why a cache may have stored a response, as the end of a sentence; None if nothing indicates this."""
    if previous_id and headers.get("X-Request-ID") == previous_id:
        return _("repeats an X-Request-ID")
    if "Age" in headers:
        return _("has an Age header")
    if "no-store" not in headers.get("Cache-Control", "").lower():
        return _("lacks Cache-Control: no-store")
    return None


async def check_resource(url: str, issuer: str, *, patience: float) -> AsyncGenerator[CheckResult, None]:
    """Check whether clients find the metadata of a resource, and this issuer in the metadata.

    The request may take `patience` seconds, and `CONNECT_TIMEOUT_SECONDS` more for connecting.
    """
    name = f"resource {url}"
    parts = urlsplit(url)
    metadata_url = f"{parts.scheme}://{parts.netloc}{RESOURCE_METADATA_PATH}{parts.path.removesuffix('/')}"
    time_limits = httpx.Timeout(patience, connect=CONNECT_TIMEOUT_SECONDS)
    try:
        async with asyncio.timeout(patience + CONNECT_TIMEOUT_SECONDS), client_for(url, time_limits) as client:
            metadata = await get_document(client, metadata_url, setting=_("the URL in WXAUTH_RESOURCES"))
    except (DocumentFault, TimeoutError) as exc:
        reason = exc.text if isinstance(exc, DocumentFault) else _("no response in time")
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
