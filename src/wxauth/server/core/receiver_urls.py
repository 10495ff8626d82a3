"""Which URLs a receiver of webhooks or logout tokens may have, as far as that can be checked before sending."""

from typing import Final
from urllib.parse import urlsplit

import httpx

from wxauth.server.core.name_resolver import NameResolver
from wxauth.server.core.receiver_addresses import Scheme, is_refused

MAX_URL: Final = 2048

_LAST_PORT: Final = 65535


class RefusedUrl(ValueError):
    """This URL is not allowed for a receiver."""


async def check_url(text: str, *, resolver: NameResolver) -> None:
    """Check a receiver's URL: https, or http if every address of its host is private or loopback.

    An https URL is accepted even if its name does not resolve now. The address is checked again on each connection.

    Raises: RefusedUrl.
    """
    if len(text) > MAX_URL or not text.isprintable() or " " in text or "\\" in text:
        raise RefusedUrl(f"Must be a URL of at most {MAX_URL} characters")
    try:
        url = httpx.URL(text)
        host = url.host  # decodes an xn-- label, which may be malformed
    except (httpx.InvalidURL, ValueError):
        raise RefusedUrl("Must be a URL") from None
    if url.scheme not in ("http", "https") or not host:
        raise RefusedUrl("Must begin with https://, or with http:// in a private network")
    if url.port is not None and not 0 < url.port <= _LAST_PORT:
        raise RefusedUrl(f"Must have a port from 1 to {_LAST_PORT}, or none")
    if "%" in host:
        raise RefusedUrl("Must be without the zone of an address")
    if "@" in urlsplit(text).netloc:
        raise RefusedUrl("Must be without a user and a password")
    scheme: Scheme = "https" if url.scheme == "https" else "http"
    try:
        # A final dot after an address is ignored by browsers and some resolvers; ours may find nothing.
        addresses = await resolver.resolve(url.raw_host.decode().removesuffix("."))
    except (OSError, UnicodeError):  # a TimeoutError is an OSError
        addresses = ()
    if not addresses and scheme == "http":
        raise RefusedUrl("Must begin with https://, for its host has no address here")
    if any(is_refused(address, scheme) for address in addresses):
        allowed = "a public or private address" if scheme == "https" else "private and loopback addresses alone"
        raise RefusedUrl(f"Must lead to {allowed}")
