"""The download of a public document, as the guard would download it, and the faults that make a document unusable."""

import socket
import ssl
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from pydantic_core import from_json

from wxauth.i18n import Text, TextError, lazy_gettext as _
from wxauth.outbound.connecting import STRICT_FORM_CODES, refusal_of
from wxauth_guard.issuer import MAX_DOCUMENT
from wxauth_guard.proxies import Proxy, proxy_for
from wxauth_guard.urls import is_loopback

CONNECT_TIMEOUT_SECONDS: Final = 3.0
MAX_SHOWN_URL: Final = 200  # characters of a URL that a response contains
_PROXY_FAILURES: Final = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})


class DocumentFault(TextError):
    """A fault that makes a document unusable. The text gives the reason and usually the fix."""


class NotRunning(DocumentFault):
    """The fault that no service responds, which is normal before wxauth has started."""


class NameUnknown(NotRunning):
    """The fault that the host's name doesn't resolve."""


def client_for(url: str, time_limits: httpx.Timeout) -> httpx.AsyncClient:
    """Return a client that connects to the host of a URL in the same way as the guard.

    Raises: DocumentFault, if SSL_CERT_FILE is not a certificate file.
    """
    proxy = _proxy_for(url)
    try:
        tls = httpx.create_ssl_context()
    except OSError as exc:
        raise DocumentFault(_("SSL_CERT_FILE isn't a certificate file: {reason}", reason=exc.strerror)) from exc
    return httpx.AsyncClient(
        verify=tls, timeout=time_limits, trust_env=False, proxy=None if proxy is None else proxy.url
    )


def _proxy_for(url: str) -> Proxy | None:
    return None if is_loopback(urlsplit(url).hostname) else proxy_for(url)


async def get_document(client: httpx.AsyncClient, url: str, *, setting: Text | str) -> dict[str, Any]:
    """Return the JSON object at a URL. `setting` names the setting that a fault advises the operator to change.

    Raises: NotRunning, if no service responds; DocumentFault, for any other fault.
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
                    raise DocumentFault(_("{url} is too large. Another service responds at this address", url=url))
    except httpx.TransportError as exc:
        raise fault_of(exc, url, setting) from exc
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
        raise DocumentFault(text)
    return document


def _check_status(response: httpx.Response, setting: Text | str) -> None:
    status, url = response.status_code, response.url
    if status == HTTPStatus.OK:
        return
    if status in _PROXY_FAILURES:
        text = _(
            "{url} returns status {status}, because the proxy there can't reach the service behind it",
            url=url,
            status=status,
        )
        raise NotRunning(text)
    if response.has_redirect_location:
        location = urlsplit(response.headers["Location"])
        target = f"{location.scheme}://{location.hostname}{location.path}" if location.hostname else location.path
        raise DocumentFault(
            _(
                "{url} redirects to {where}, but services don't follow redirects. Serve the document at the "
                "first address, or set {setting} to the second address",
                url=url,
                where=target[:MAX_SHOWN_URL],
                setting=setting,
            )
        )
    raise DocumentFault(
        _(
            "{url} returns status {status}. Another service responds at this address, or the proxy there "
            "doesn't forward /.well-known/",
            url=url,
            status=status,
        )
    )


def fault_of(exc: httpx.TransportError, url: str, setting: Text | str) -> DocumentFault:
    """Return the fault that explains an error of httpx, by its first cause that is known.

    For `setting`, see `get_document`.
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
        return NotRunning(_("this machine can't connect to {where} ({kind})", where=where, kind=kind))
    if isinstance(exc, httpx.TimeoutException):
        text = _(
            "{where} accepts the connection but doesn't respond. Check the logs of the service and of the proxy",
            where=where,
        )
        return DocumentFault(text)
    text = _("{where} closes the connection without a response ({kind})", where=where, kind=kind)
    if parts.scheme == "http":
        text += _(". If the address uses TLS, {setting} must begin with https", setting=setting)
    return DocumentFault(text)


def _fault_of_cause(cause: BaseException, where: Text | str) -> DocumentFault | None:
    match cause:
        case ssl.SSLCertVerificationError():
            why = refusal_of(cause)
            if cause.verify_code not in STRICT_FORM_CODES:  # otherwise `why` already says how to fix the certificate
                why = _(
                    "{why}. Configure the proxy there to send a certificate for this name, with its complete chain",
                    why=why,
                )
            return DocumentFault(_("{where} has an invalid certificate: {why}", where=where, why=why))
        case ssl.SSLWantReadError():  # TLS was only waiting for data when the time limit expired
            return None
        case ssl.SSLError():
            text = _(
                "{where} doesn't use TLS ({why}). If the address uses http, change it to https, because your "
                "services require https",
                where=where,
                why=cause.reason,
            )
            return DocumentFault(text)
        case socket.gaierror():
            return NameUnknown(_("the host name of {where} doesn't resolve on this machine", where=where))
        case ConnectionRefusedError():
            return NotRunning(_("nothing listens on {where}", where=where))
    return None
