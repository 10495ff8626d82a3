"""The service at its public URL, as siblings find it."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from pydantic_core import from_json

from wxauth.checks.findings import Findings
from wxauth.checks.result import Result, bad, good, note
from wxauth.core.tables import StoredSigningKey
from wxauth.guard.jwks import MAX_DOCUMENT, METADATA_PATH
from wxauth.guard.urls import is_loopback, is_secure
from wxauth.tokens.keys import verification_keys

_NAME: Final = "issuer"
_CONNECT_TIMEOUT: Final = 3.0
_LONGEST_NAME: Final = 200
# What a proxy says when there is nothing behind it.
_NOBODY_BEHIND: Final = frozenset({502, 503, 504})
_IS_IT_RUNNING: Final = "right before 'wxauth serve' has started, wrong afterwards"


class _NotThere(Exception):
    """Nobody answers: the service need not be running yet."""


class _Wrong(Exception):
    """What answers is not what siblings need; the text says why, and what to do."""


async def check_issuer(issuer: str, found: Findings, *, now: datetime, patience: float) -> AsyncGenerator[Result, None]:
    """Whether siblings find there the keys that are stored, each document within so many seconds."""
    yield await _judge_issuer(issuer, found.signing_keys, now=now, patience=patience)


async def _judge_issuer(
    issuer: str, keys: Sequence[StoredSigningKey] | None, *, now: datetime, patience: float
) -> Result:
    try:
        async with asyncio.timeout(patience + _CONNECT_TIMEOUT):
            kids = await _published_kids(issuer, httpx.Timeout(patience, connect=_CONNECT_TIMEOUT))
    except _NotThere as exc:
        return note(_NAME, f"{exc}: {_IS_IT_RUNNING}")
    except _Wrong as exc:
        return bad(_NAME, str(exc))
    except TimeoutError:
        return bad(_NAME, f"{issuer} takes too long to answer: see the service's log, and the proxy in front of it")
    if keys is None:
        return note(_NAME, f"{issuer} answers; whether with the stored keys cannot be told without the database")
    # One that does not sign yet may be missing in what a cache in between holds.
    signing = {key.kid for key in keys if key.activates_at <= now}
    if not signing & kids:
        return bad(
            _NAME,
            f"{issuer} answers with none of the stored keys: the service there has another database, see its "
            "WXAUTH_DATABASE_URL and this one",
        )
    if missing := signing - kids:
        return bad(
            _NAME,
            f"{issuer} lacks {len(missing)} of {len(signing)} stored keys, and siblings refuse their tokens: does the "
            "service there log signing_keys_not_opened, or a cache keep its jwks_uri for more than five minutes?",
        )
    if is_loopback(urlsplit(issuer).hostname):
        return good(
            _NAME, f"{issuer} answers with the stored keys, to this machine alone: set WXAUTH_ISSUER for others"
        )
    return good(_NAME, f"{issuer} answers with the stored keys")


async def _published_kids(issuer: str, limits: httpx.Timeout) -> set[str]:
    # As the guard does it, so that what is in the way of a sibling is in the way here.
    on_loopback = is_loopback(urlsplit(issuer).hostname)
    async with httpx.AsyncClient(timeout=limits, trust_env=not on_loopback) as client:
        metadata = await _get(client, issuer + METADATA_PATH)
        named = metadata.get("issuer")
        if named != issuer:
            other = named.rpartition("@")[2][:_LONGEST_NAME] if isinstance(named, str) else "none"
            raise _Wrong(f"{issuer} says that its issuer is {other!r}: its WXAUTH_ISSUER and this one must be the same")
        jwks_uri = metadata.get("jwks_uri")
        if not isinstance(jwks_uri, str) or not is_secure(jwks_uri) or not (on_loopback or jwks_uri[:6] == "https:"):
            raise _Wrong(f"{issuer} has no jwks_uri with https: another service answers there")
        documents = (await _get(client, jwks_uri)).get("keys")
    if not isinstance(documents, list):
        raise _Wrong(f"{jwks_uri} has no list of keys: another service answers there")
    return set(verification_keys(documents))


async def _get(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    try:
        async with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
            _judge_status(response)
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_DOCUMENT:
                    raise _Wrong(f"{url} is too large: another service answers there")
    except httpx.TransportError as exc:
        raise _named(exc, url) from exc
    try:
        document = from_json(bytes(body))
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _Wrong(f"{url} is no JSON object: another service answers there, or a proxy does not pass it on")
    return document


def _judge_status(response: httpx.Response) -> None:
    status, url = response.status_code, response.url
    if status == HTTPStatus.OK:
        return
    if status in _NOBODY_BEHIND:
        raise _NotThere(f"{url} answers with status {status}, so the proxy there finds no service behind it")
    if response.is_redirect:
        to = urlsplit(response.headers["Location"])
        where = f"{to.scheme}://{to.hostname}{to.path}" if to.hostname else to.path
        raise _Wrong(
            f"{url} redirects to {where[:_LONGEST_NAME]}, where siblings do not follow: serve it there, "
            "or set WXAUTH_ISSUER to where it is"
        )
    raise _Wrong(
        f"{url} answers with status {status}: another service answers there, or the proxy in front "
        "does not pass /.well-known/ on"
    )


def _named(exc: httpx.TransportError, url: str) -> _NotThere | _Wrong:
    """What is in the way, told apart by what has happened beneath httpx."""
    parts = urlsplit(url)
    where = f"{parts.scheme}://{parts.netloc}"
    for cause in _causes(exc):
        match cause:
            case ssl.SSLCertVerificationError():
                what_to_do = "have the proxy there send a certificate for this name, with its whole chain"
                return _Wrong(f"{where} has a certificate that does not hold: {cause.verify_message}; {what_to_do}")
            case ssl.SSLError() if not isinstance(cause, ssl.SSLWantReadError):
                return _Wrong(f"{where} does not speak TLS ({cause.reason}): is it plain http? Siblings want https")
            case socket.gaierror():
                return _NotThere(f"{where} is a name that is not known here")
            case ConnectionRefusedError():
                return _NotThere(f"nothing listens at {where}")
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return _NotThere(f"{where} cannot be connected to from here ({type(exc).__name__})")
    if isinstance(exc, httpx.TimeoutException):
        return _Wrong(f"{where} takes the connection and does not answer: see the service's log, and the proxy's")
    hint = ": does it speak TLS? Then WXAUTH_ISSUER wants https" if parts.scheme == "http" else ""
    return _Wrong(f"{where} closes the connection without an answer ({type(exc).__name__}){hint}")


def _causes(exc: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = exc
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
