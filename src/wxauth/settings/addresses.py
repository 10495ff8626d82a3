"""IP addresses and networks, the lookup of host names, and the addresses to which wxauth sends no requests.

Operators and clients enter URLs, for example of webhooks and metadata documents. A request to such a URL must not reach
a cloud's metadata service, which only this machine can reach.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from socket import AI_NUMERICHOST, SOCK_STREAM, getaddrinfo
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator

from wxauth.i18n import WrongValue, lazy_gettext as _
from wxauth.settings.types import CommaList

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network
Scheme = Literal["http", "https"]


class PrefixLengths(NamedTuple):
    """The numbers of leading bits that identify the network of an IPv4 address and of an IPv6 address."""

    v4: int
    v6: int

    def network_of(self, ip: str) -> str:
        """Return the network of an address, such as `192.0.2.0/24`."""
        address = plain_address(ip)
        return str(ip_network((address, self.length_of(address)), strict=False))

    def length_of(self, item: IpAddress | IpNetwork) -> int:
        """Return the prefix length for the IP version of an address or network."""
        return self.v4 if item.version == 4 else self.v6

    def widened(self, network: IpNetwork) -> IpNetwork:
        """Return a network widened to the prefix length for its IP version. A wider network stays unchanged."""
        return network.supernet(new_prefix=min(network.prefixlen, self.length_of(network)))


TRUNCATED: Final = PrefixLengths(24, 48)  # stored, shown or logged where the whole address must not appear
NEARBY: Final = PrefixLengths(24, 56)  # two devices in one home or office probably share it
_PRIVATE: Final = tuple(
    map(
        ip_network,
        # Internet providers use 100.64.0.0/10 for NAT. Containers and private networks such as Tailscale also use it.
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1/128"),
    )
)
# An IPv6 address outside of 2000::/3 is reserved, local, multicast, or another form of an IPv4 address.
_PUBLIC: Final = tuple(map(ip_network, ("0.0.0.0/0", "2000::/3")))
_METADATA: Final = (
    ip_network("169.254.0.0/16"),  # link-local, including the metadata service of most clouds
    ip_network("100.100.100.200/32"),  # Alibaba's metadata service
    ip_network("168.63.129.16/32"),  # Azure's metadata service
    ip_network("192.0.0.192/32"),  # Oracle's metadata service
)  # `is_refused` also refuses an IPv6 address that ends with such an address
_NEVER_ALLOWED: Final = _METADATA + tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this host
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and the broadcast address
            "2001::/32",  # Teredo, which contains two IPv4 addresses
            "fd00:ec2::/32",  # Amazon's metadata service, and its other services on the machine
            "fd20:ce::254/128",  # Google's metadata service
            "fd00:c1::a9fe:a9fe/128",  # Oracle's metadata service
            "fd00:100::100:200/128",  # Alibaba's metadata service
            "fd00:a9fe:a9fe::1/128",  # Linode's metadata service
            "fd00:42::42/128",  # Scaleway's metadata service
        ),
    )
)
_LOCAL_DOMAINS: Final = (".localhost", ".local", ".internal")
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052; the last 32 bits are an IPv4 address


def plain_address(text: str) -> IpAddress:
    """Return the address that a text denotes.

    For an IPv4-mapped IPv6 address (`::ffff:192.0.2.1`), return the IPv4 address. A zone (`fe80::1%eth0`) is removed,
    because PostgreSQL's addresses have no zone.
    """
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or address


async def addresses_of(host: str, *, seconds: float) -> Sequence[str]:
    """Return the addresses of a host name, in the order in which they should be tried.

    The result is empty if the name does not resolve within `seconds`, or if `host` is no name.
    """
    if not host or host.startswith("/") or "," in host:
        return []
    with suppress(ValueError):
        ip_address(host)
        return []  # an address needs no lookup
    try:
        async with asyncio.timeout(seconds):
            entries = await asyncio.get_running_loop().getaddrinfo(host, None, type=SOCK_STREAM)
    except (OSError, UnicodeError):  # a TimeoutError is an OSError
        return []
    return _addresses_in(entries)


def numeric_addresses_of(host: str) -> Sequence[str]:
    """Return a list with the address that a host denotes in any notation, such as `0x7f.1`, if it is no name."""
    with suppress(OSError, UnicodeError):
        return _addresses_in(getaddrinfo(host, None, flags=AI_NUMERICHOST))
    return []


def _addresses_in(entries: Iterable[tuple[Any, ...]]) -> list[str]:
    return list(dict.fromkeys(str(entry[-1][0]) for entry in entries))


def is_local_host(host: str) -> bool:
    """Return whether wxauth must not ask a proxy for this host, because the proxy might reach another machine.

    wxauth cannot check the address to which a proxy connects. So it refuses addresses that it never connects to, the
    loopback addresses, which would be the proxy's own, and names that a private network resolves.
    """
    name = host.strip("[]").removesuffix(".").lower()
    addresses = numeric_addresses_of(name)
    if addresses:
        return any(is_refused(address, "https") or plain_address(address).is_loopback for address in addresses)
    return "." not in name or name.endswith(_LOCAL_DOMAINS)


def is_refused(address: str, scheme: Scheme) -> bool:
    """Return whether wxauth must not send requests to this address with this scheme.

    Link-local, multicast, unspecified, reserved, Teredo and metadata addresses are always refused. Without TLS, only
    private addresses are allowed. An IPv4-mapped, NAT64 or 6to4 address counts as the IPv4 address that it contains.
    """
    as_written = ip_address(address.partition("%")[0])
    unwrapped = _unwrapped(as_written)
    allowed = _PRIVATE if scheme == "http" else _PRIVATE + _PUBLIC
    return (
        not any(unwrapped in network for network in allowed)
        or any(unwrapped in network for network in _NEVER_ALLOWED)
        # A network may choose its own prefix for NAT64, so any IPv6 address might lead to a metadata service. Usually,
        # the last 32 bits of a NAT64 address are the IPv4 address.
        or any(_last_32_bits(as_written) in network for network in _METADATA)
    )


def _unwrapped(address: IpAddress) -> IpAddress:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return _last_32_bits(address)
    return address.ipv4_mapped or address.sixtofour or address


def _last_32_bits(address: IpAddress) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFF_FFFF)


def _check_proxies(value: tuple[str, ...]) -> tuple[str, ...]:
    if value == ("*",):
        return value
    try:
        items = tuple(map(_in_usual_form, value))
    except ValueError:
        raise WrongValue(
            _("must be addresses or networks such as 10.0.0.0/8, separated by commas, or a single *")
        ) from None
    # If all addresses were trusted as proxies, wxauth would use the first entry of `X-Forwarded-For`, which the client
    # itself writes.
    if any(item.endswith("/0") for item in items):
        raise WrongValue(_("must be the networks of your proxies, not all addresses. * trusts only the last hop"))
    return items


def _in_usual_form(item: str) -> str:
    if "/" in item:
        return str(ip_network(item, strict=False))
    return str(ip_address(item))


def _check_exempt(value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        networks = tuple(ip_network(item, strict=False) for item in value)
    except ValueError:
        raise WrongValue(_("must be addresses or networks such as 203.0.113.0/24, separated by commas")) from None
    if any(network.prefixlen == 0 for network in networks):
        raise WrongValue(
            _("must be your own networks, not all addresses. To remove the limit, leave LOGIN_RATE_LIMIT empty")
        )
    return tuple(map(str, networks))


ProxyNetworks = Annotated[tuple[str, ...], CommaList, AfterValidator(_check_proxies)]
ExemptNetworks = Annotated[tuple[str, ...], CommaList, AfterValidator(_check_exempt)]
