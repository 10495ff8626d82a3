"""Which addresses a receiver of webhooks or logout tokens may have.

No URL may reach services that only this machine can reach.
"""

from ipaddress import IPv4Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal

from wxauth.server.core.ip_addresses import IpAddress

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
