"""Which URLs a webhook may have, as far as that can be told before anything is sent."""

import asyncio
import socket
from typing import Final
from urllib.parse import urlsplit

from yarl import URL

from wxauth.siblings.addresses import Scheme, is_refused

MAX_URL: Final = 2048
RESOLVE_PATIENCE: Final = 5.0
"""Seconds for the name of a host."""


class RefusedUrl(ValueError):
    """Nothing may be sent there."""


async def check_url(text: str) -> None:
    """See that a webhook may have this URL: https, or http where every address of its host is private or loopback.

    A name that does not resolve now is taken where it is https. What is connected to is checked again, each time.

    Raises: RefusedUrl.
    """
    if len(text) > MAX_URL or not text.isprintable() or " " in text or "\\" in text:
        raise RefusedUrl(f"Should be a URL of at most {MAX_URL} characters")
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        raise RefusedUrl("Should be a URL") from None
    if url.scheme not in ("http", "https") or not host or not port:
        raise RefusedUrl("Should begin with https://, or with http:// in a private network")
    if "@" in urlsplit(text).netloc:
        raise RefusedUrl("Should be without a user and a password")
    scheme: Scheme = "https" if url.scheme == "https" else "http"
    addresses = await _addresses_of(host, port)
    if not addresses and scheme == "http":
        raise RefusedUrl("Should begin with https://, for its host has no address here")
    if any(is_refused(address, scheme) for address in addresses):
        wanted = "a public or private address" if scheme == "https" else "private and loopback addresses alone"
        raise RefusedUrl(f"Should lead to {wanted}")


async def _addresses_of(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_PATIENCE):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return []
    return [str(entry[4][0]) for entry in found]
