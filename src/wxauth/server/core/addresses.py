"""IP addresses and their networks; those that receivers may have, such as of webhooks; the resolving of names.

No receiver's URL may reach services that only this machine can reach.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from threading import Thread
from typing import Final, Literal, LiteralString, NamedTuple
from urllib.parse import urlsplit

from wxauth.server.core.statements import part

RESOLVE_TIMEOUT_SECONDS: Final = 5.0
"""Seconds that a caller waits for a name."""
MAX_CONCURRENT_NAMES: Final = 32
"""How many names are resolved at once. Others wait until the system has resolved or given up one of these."""
MAX_URL: Final = 2048
_LAST_PORT: Final = 65535

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network


class PrefixLengths(NamedTuple):
    """How many bits of an address name its network, in each version of IP."""

    v4: int
    v6: int

    def network_of(self, ip: str) -> str:
        """The network of an address. Raises: ValueError, if the text is no address."""
        address = plain_address(ip)
        return str(ip_network((address, self.v4 if address.version == 4 else self.v6), strict=False))

    def length_of(self, network: IpNetwork) -> int:
        """The length for the version of a network."""
        return self.v4 if network.version == 4 else self.v6

    def widened(self, network: IpNetwork) -> IpNetwork:
        """The network of this length that contains a longer one; any other as it is."""
        return network.supernet(new_prefix=min(network.prefixlen, self.length_of(network)))

    def network_in_sql(self, address: LiteralString) -> LiteralString:
        """`network_of` as an expression of SQL. `address` is one, too."""
        return f"network(set_masklen({address}, {self.length_in_sql(address)}))"

    def length_in_sql(self, address: LiteralString) -> LiteralString:
        """The length for the version of an address, as an expression of SQL. `address` is one, too."""
        return f"CASE family({address}) WHEN 4 THEN {part(str(self.v4))} ELSE {part(str(self.v6))} END"


TRUNCATED: Final = PrefixLengths(24, 48)
"""What is stored, shown or logged of an address where the address itself must not be."""
NEARBY: Final = PrefixLengths(24, 56)
"""The network that two devices in one home or office probably share."""


def plain_address(text: str) -> IpAddress:
    """Parse an address. An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) becomes the IPv4 address.

    A zone (`fe80::1%eth0`) is left out, because PostgreSQL has none.

    Raises: ValueError, if the text is no address.
    """
    address = ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


LookUp = Callable[[str], Sequence[str]]
"""Returns the addresses of a name. It may block its thread. Raises: OSError, UnicodeError."""


def addresses_of(host: str) -> Sequence[str]:
    """The addresses of a name, or of an address in any spelling. Raises: OSError, UnicodeError."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class NameResolver:
    """Resolves names, each in a thread of its own.

    uvloop's own resolver looks up only two names at once in the whole process, so two webhooks with dead name servers
    would delay every webhook, and calls to WeChat. Here, such a name occupies one thread until the system gives up, no
    matter how many callers ask for it. The threads do not delay the end of the process.

    Args:
        look_up: Asks the system.
        patience: Seconds that a caller waits for a name.
    """

    def __init__(self, look_up: LookUp = addresses_of, *, patience: float = RESOLVE_TIMEOUT_SECONDS) -> None:
        self._look_up = look_up
        self._patience = patience
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_NAMES)
        self._under_way: dict[str, asyncio.Task[Sequence[str]]] = {}

    async def resolve(self, host: str) -> Sequence[str]:
        """The addresses of a name or an address. Raises: OSError, including TimeoutError; UnicodeError."""
        lookup = self._under_way.get(host)
        if lookup is None:
            lookup = self._under_way[host] = asyncio.create_task(self._resolve_in_thread(host), name=f"name {host}")
            lookup.add_done_callback(lambda done: self._drop(host, done))
        async with asyncio.timeout(self._patience):
            return await asyncio.shield(lookup)

    async def _resolve_in_thread(self, host: str) -> Sequence[str]:
        async with self._slots:
            found: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
            Thread(target=self._ask, args=(host, found), name=f"name {host}", daemon=True).start()
            return await found

    def _ask(self, host: str, found: asyncio.Future[Sequence[str]]) -> None:
        addresses: Sequence[str] = ()
        failure: Exception | None = None
        try:
            addresses = self._look_up(host)
        except Exception as exc:
            failure = exc

        def settle() -> None:
            if found.done():  # cancelled, because the service has ended
                return
            if failure is None:
                found.set_result(addresses)
            else:
                found.set_exception(failure)

        with suppress(RuntimeError):  # the loop has ended
            found.get_loop().call_soon_threadsafe(settle)

    def _drop(self, host: str, done: asyncio.Task[Sequence[str]]) -> None:
        del self._under_way[host]
        if not done.cancelled():
            done.exception()  # or asyncio logs an exception that was never retrieved


Scheme = Literal["http", "https"]

_PRIVATE: Final = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7", "::1/128"))
)
_PUBLIC: Final = tuple(map(ip_network, ("0.0.0.0/0", "2000::/3")))
"""IPv6 beyond it is reserved, local to a link, or a form of IPv4 addresses: translated, compatible, local-use NAT64."""
_METADATA: Final = (
    ip_network("169.254.0.0/16"),  # link-local; the metadata of most clouds too
    ip_network("100.100.100.200/32"),  # Alibaba's metadata
)
_NEVER: Final = _METADATA + tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this host
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and the broadcast address
            "2001::/32",  # Teredo, which holds two IPv4 addresses
            "fd00:ec2::/32",  # Amazon's metadata, and its other services on the machine
            "fd20:ce::254/128",  # Google's metadata
            "fd00:c1::a9fe:a9fe/128",  # Oracle's
            "fd00:100::100:200/128",  # Alibaba's
            "fd00:a9fe:a9fe::1/128",  # Linode's
            "fd00:42::42/128",  # Scaleway's
        ),
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_refused(address: str, scheme: Scheme) -> bool:
    """Whether sending to this address is forbidden.

    Link-local, multicast, unspecified and metadata addresses are always refused. Without TLS, only private addresses
    are allowed. An IPv4 address embedded in an IPv6 address is judged as the IPv4 address.
    """
    given = ip_address(address.partition("%")[0])
    judged = _held_in(given)
    allowed = _PRIVATE if scheme == "http" else _PRIVATE + _PUBLIC
    return (
        not any(judged in network for network in allowed)
        or any(judged in network for network in _NEVER)
        # Any network may have a prefix of its own for NAT64, mostly with the IPv4 address at the end.
        or any(_end_of(given) in network for network in _METADATA)
    )


def _held_in(address: IpAddress) -> IpAddress:
    """The IPv4 address in an IPv4-mapped, NAT64 or 6to4 address; any other address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return _end_of(address)
    return address.ipv4_mapped or address.sixtofour or address


def _end_of(address: IpAddress) -> IPv4Address:
    """The last 32 bits."""
    return IPv4Address(int(address) & 0xFFFF_FFFF)


class RefusedUrl(ValueError):
    """This URL is not allowed for a receiver."""


async def check_url(text: str, *, resolver: NameResolver) -> None:
    """Check a receiver's URL: https, or http if every address of its host is private or loopback.

    An https URL is accepted even if its name does not resolve now. The address is checked again on each connection.

    Raises: RefusedUrl.
    """
    import httpx  # a tenth of a second, and most commands check no URL

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
