"""The transport for requests to URLs that operators or clients have chosen, for example of webhooks."""

import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from socket import AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM
from typing import Final

import httpx
from pydantic import SecretStr

from wxauth import __version__
from wxauth.i18n import lazy_gettext as _
from wxauth.outbound.connecting import AddressInfo, Origin, Proxy, ProxyFailed, Refused
from wxauth.outbound.connection import AnswerTooLarge
from wxauth.outbound.transport import HttpTransport
from wxauth.outbound.urls import NameResolver
from wxauth.settings.addresses import Scheme, is_local_host, is_refused
from wxauth.settings.settings import Settings

CONNECT_TIMEOUT_SECONDS: Final = 8.0  # with name resolution, TCP and TLS
# Many servers close an idle connection after five seconds, and a request on a closed connection would count as failed.
_KEEPALIVE_SECONDS: Final = 4.0
USER_AGENT: Final = f"wxauth/{__version__}"

_NO_DNS_RESPONSE: Final = _("no DNS response for the host name")
_HOST_NOT_FOUND: Final = _("host not found")
ADDRESS_NOT_ALLOWED: Final = _("the address is not allowed")

# With this extension, a request does not use the proxy.
DIRECT: Final = "wxauth.direct"
ResolveName = Callable[[str], Awaitable[Sequence[str]]]  # raises OSError, UnicodeError


class ReceiverTransport(httpx.AsyncBaseTransport):
    """A transport that sends requests to the host in the URL, but only to this host's allowed addresses.

    It resolves names itself, and connects to the address that it has checked. Therefore, the check cannot be bypassed
    with a name that resolves differently the next time, or with an unusual spelling of an address. With `proxy`, it
    asks the proxy for the host of an https URL, and resolves no name, but refuses hosts of private networks
    (`is_local_host`). An http URL is one of a private network, and does not use the proxy. The transport does not
    follow redirects, and does not use proxies from the environment. Requests and responses have the extensions of
    `HttpTransport`, which sends the requests. With httpx's own connection pool, forwarding a message took three times
    as much CPU time as a login.

    Raises: httpx.TransportError, with a short message that may be shown, because it contains no text from the server.
    """

    def __init__(
        self,
        *,
        resolve: ResolveName | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: SecretStr | None = None,
    ) -> None:
        self._resolve = resolve or NameResolver().resolve
        make = partial(
            HttpTransport,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            tls=tls,
            max_connections=sys.maxsize,  # the senders limit how many requests run at the same time
            idle_seconds=_KEEPALIVE_SECONDS,
        )
        self._direct = make(resolve=self._allowed_addresses)
        self._proxied = None if proxy is None else make(proxy=proxy)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            is_direct = request.url.scheme == "http" or request.extensions.get(DIRECT, False)
            if self._proxied is None or is_direct:
                return await self._direct.handle_async_request(request)
            if is_local_host(request.url.raw_host.decode()):
                raise httpx.ConnectError(ADDRESS_NOT_ALLOWED)
            return await self._proxied.handle_async_request(request)
        except httpx.RequestError as exc:
            failure = _shown_failure(exc)
        # The failure is raised outside of the `except` block, so that its context does not contain text from the other
        # server.
        raise failure

    async def aclose(self) -> None:
        await self._direct.aclose()
        if self._proxied is not None:
            await self._proxied.aclose()

    async def _allowed_addresses(self, peer: Origin | Proxy) -> Sequence[AddressInfo]:
        scheme: Scheme = "https" if peer.scheme == "https" else "http"
        try:
            addresses = await self._resolve(peer.host)
        except TimeoutError:
            raise Refused(_NO_DNS_RESPONSE) from None
        except (OSError, UnicodeError):
            raise Refused(_HOST_NOT_FOUND) from None
        distinct = dict.fromkeys(addresses)  # unlike a set, a dict keeps their order
        allowed = [address for address in distinct if not is_refused(address, scheme)]
        if not allowed:
            raise Refused(ADDRESS_NOT_ALLOWED)
        return [
            (AF_INET6 if ":" in address else AF_INET, SOCK_STREAM, IPPROTO_TCP, "", (address, peer.port))
            for address in allowed
        ]


def receiver_transport_for(settings: Settings, resolver: NameResolver | None = None) -> ReceiverTransport:
    """Return the transport for receivers that the operator or an administrator has chosen."""
    return ReceiverTransport(resolve=(resolver or NameResolver()).resolve, proxy=settings.receivers_proxy)


def _shown_failure(exc: httpx.RequestError) -> httpx.TransportError:
    reason = exc.args[0]
    match exc:
        case ProxyFailed():
            return httpx.ConnectError(reason)
        case httpx.ConnectTimeout():
            return httpx.ConnectTimeout(_("timed out while connecting"))
        case httpx.ConnectError():
            return httpx.ConnectError(_why_not_connected(reason))
        case httpx.PoolTimeout():  # the request's deadline was so near that the request was not sent
            return httpx.PoolTimeout(reason)
        case httpx.LocalProtocolError():
            return httpx.UnsupportedProtocol(_("the URL cannot be used"))
        case httpx.DecodingError():
            # A DecodingError is not a TransportError.
            is_too_large = isinstance(exc, AnswerTooLarge)
            return httpx.RemoteProtocolError(_("answer is too large") if is_too_large else _("answer is not HTTP"))
        case _:
            # The connection ended before the response was complete. A ReadTimeout is not expected, because the senders
            # limit the time themselves instead of setting a deadline.
            return httpx.ReadError(_("connection lost"))


def _why_not_connected(reason: str) -> str:
    if reason in (_NO_DNS_RESPONSE, _HOST_NOT_FOUND, ADDRESS_NOT_ALLOWED):
        return reason
    # The message of a failure of TLS begins with the name of the original class (see `connecting._failure`), because
    # texts about WeChat show this name.
    if reason.startswith(ssl.SSLCertVerificationError.__name__):
        return _("the certificate is not valid")
    if reason.startswith("SSL"):  # the names of all errors of the module `ssl` begin like this
        return _("TLS failed")
    return _("could not connect")
