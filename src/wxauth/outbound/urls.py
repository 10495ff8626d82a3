"""The rules for the URLs of receivers, for example of webhooks, and the resolution of their host names."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Thread
from typing import Final
from urllib.parse import urlsplit

from wxauth.core.background import once
from wxauth.i18n import WrongValue, lazy_gettext as _
from wxauth.settings.addresses import Scheme, is_local_host, is_refused, numeric_addresses_of
from wxauth.settings.types import LAST_PORT
from wxauth.settings.urls import MAX_URL
from wxauth_guard.urls import is_http_url

RESOLVE_TIMEOUT_SECONDS: Final = 5.0
MAX_CONCURRENT_NAMES: Final = 32  # each occupies a thread, and further names wait

LookUp = Callable[[str], Sequence[str]]  # may block the thread; raises OSError, UnicodeError


def look_up_addresses(host: str) -> Sequence[str]:
    """Return the addresses of a host name. Block the thread until the system has resolved the name."""
    # Each entry ends with a socket address, which begins with the IP address.
    return [str(entry[-1][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


@dataclass(eq=False)
class NameResolver:
    """A resolver that looks up each name in a separate thread.

    uvloop's own resolver looks up only two names at the same time in the whole process. Two webhooks whose name servers
    do not respond would delay every webhook, and calls to WeChat. With this resolver, a name without a response
    occupies one thread until the system gives up, however many callers wait for this name. The threads do not delay the
    end of the process.
    """

    look_up: LookUp = look_up_addresses
    patience: float = field(default=RESOLVE_TIMEOUT_SECONDS, kw_only=True)
    _slots: asyncio.Semaphore = field(init=False, default_factory=lambda: asyncio.Semaphore(MAX_CONCURRENT_NAMES))
    _under_way: dict[str, asyncio.Task[Sequence[str]]] = field(init=False, default_factory=dict)

    async def resolve(self, host: str) -> Sequence[str]:
        """Return the addresses of a host name. Raises: OSError (including TimeoutError) or UnicodeError."""
        async with asyncio.timeout(self.patience):
            return await once(self._under_way, host, lambda: self._resolve_in_thread(host))

    async def _resolve_in_thread(self, host: str) -> Sequence[str]:
        async with self._slots:
            addresses = Future[Sequence[str]]()
            # After this call, cancelling the task no longer cancels the future, so the thread can still set the result.
            addresses.set_running_or_notify_cancel()
            Thread(target=self._set_addresses, args=(host, addresses), name=f"name {host}", daemon=True).start()
            return await asyncio.wrap_future(addresses)

    def _set_addresses(self, host: str, addresses: Future[Sequence[str]]) -> None:
        try:
            addresses.set_result(self.look_up(host))
        except Exception as exc:
            addresses.set_exception(exc)


async def check_url(
    text: str, *, resolver: NameResolver, resolves_https: bool = True, is_proxied: bool = False
) -> None:
    """Check that a receiver's URL uses https, or http if every address of its host is private or loopback.

    The name of an https URL must not resolve to an address that wxauth never connects to, such as a link-local address.
    An https URL is accepted even if its name does not resolve now, because each connection checks the address again. If
    `resolves_https` is False, the host of an https URL is checked only if it is an address in place of a name. If the
    requests will go through a proxy (`is_proxied`), the names of https URLs are not resolved either.
    """
    scheme, name = _scheme_and_name(text)
    if is_proxied and scheme == "https":
        if is_local_host(name):
            raise WrongValue(_("must have a host that RECEIVERS_PROXY can reach, and not one of a private network"))
        return
    try:
        if scheme == "http" or resolves_https:
            addresses = await resolver.resolve(name)
        else:
            addresses = numeric_addresses_of(name)
    except (OSError, UnicodeError):  # a TimeoutError is an OSError, too
        addresses = ()
    if not addresses and scheme == "http":
        raise WrongValue(_("must begin with https://, because its host doesn't resolve on this machine"))
    if any(is_refused(address, scheme) for address in addresses):
        if scheme == "https":
            raise WrongValue(_("must resolve to a public or private address"))
        raise WrongValue(_("must resolve only to private or loopback addresses"))


def _scheme_and_name(text: str) -> tuple[Scheme, str]:
    # The import takes a tenth of a second, and most commands check no URL.
    import httpx

    if len(text) > MAX_URL or not text.isprintable() or " " in text or "\\" in text:
        raise WrongValue(_("must be a URL of up to {n} characters without spaces or backslashes", n=MAX_URL))
    try:
        url = httpx.URL(text)
        host = url.host  # this decodes the labels that begin with xn--, and fails if one is malformed
    except (httpx.InvalidURL, ValueError):
        raise WrongValue(_("must be a URL")) from None
    if url.scheme not in ("http", "https") or not host:
        raise WrongValue(_("must begin with https://, or with http:// on a private network"))
    if url.port is not None and not 0 < url.port <= LAST_PORT:
        raise WrongValue(_("must have a port from 1 to {n}, or no port", n=LAST_PORT))
    if "%" in host:
        raise WrongValue(_("must not contain an IPv6 zone"))
    if not is_http_url(text):  # httpx accepts some URLs that `urlsplit` below cannot parse
        raise WrongValue(_("must be a URL"))
    if "@" in urlsplit(text).netloc:  # `url.userinfo` would not show an empty user name, as in `https://@example.com`
        raise WrongValue(_("must not contain a user name or a password"))
    scheme: Scheme = "https" if url.scheme == "https" else "http"
    # Browsers and some resolvers ignore a final dot after an address, but the system's resolver might not find such an
    # address. Therefore, the result contains no final dot, and `check_url` checks the address.
    return scheme, url.raw_host.decode().removesuffix(".")
