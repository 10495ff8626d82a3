"""Which addresses a webhook may lead to, so that no URL makes this service reach what only this machine can."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal

Scheme = Literal["http", "https"]

_PRIVATE: Final = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7", "::1/128"))
)
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
            "::/128",
            "fe80::/10",
            "fec0::/10",
            "ff00::/8",
            "fd00:ec2::/32",  # Amazon's metadata, and its other services on the machine
            "fd20:ce::254/128",  # Google's metadata
            "fd00:c1::a9fe:a9fe/128",  # Oracle's
            "fd00:100::100:200/128",  # Alibaba's
            "fd00:a9fe:a9fe::1/128",  # Linode's
            "fd00:42::42/128",  # Scaleway's
        ),
    )
)
# Networks whose addresses hold an IPv4 address, and by how many bits it is shifted: 0 is the last 32 bits.
_HOLDERS: Final = (
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # translated (SIIT)
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("2002::/16"), 80),  # 6to4
    (IPv6Network("::/96"), 0),  # IPv4-compatible
)
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_SHORTER_PREFIXES: Final = (48, 56, 64)
_TEREDO: Final = IPv6Network("2001::/32")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)
_LOW: Final = 0xFFFF_FFFF

Address = IPv4Address | IPv6Address


def is_refused(address: str, scheme: Scheme) -> bool:
    """Whether nothing may be sent there.

    Link-local, multicast, unspecified and metadata addresses are always refused. Without TLS, only private addresses
    are allowed. An IPv4 address inside an IPv6 one is judged as the IPv4 address.
    """
    return any(_is_refused(each, scheme) for each in _all_in(ip_address(address.partition("%")[0])))


def _is_refused(address: Address, scheme: Scheme) -> bool:
    if any(address in network for network in _NEVER):
        return True
    return scheme == "http" and not any(address in network for network in _PRIVATE)


def _all_in(address: Address) -> list[Address]:
    """The addresses to judge: more than one where an address can be read in several ways."""
    if isinstance(address, IPv4Address) or int(address) <= 1:  # `::` and `::1` hold no IPv4 address
        return [address]
    number = int(address)
    for network, shift in _HOLDERS:
        if address in network:
            return [IPv4Address(number >> shift & _LOW)]
    if address in _LOCAL_NAT64:
        return [IPv4Address(number & _LOW), *_metadata_behind_shorter_prefixes(number)]
    if address in _TEREDO:
        return [IPv4Address(number >> 64 & _LOW), IPv4Address(~number & _LOW)]
    if number >> 32 & _LOW in _ISATAP:
        return [address, IPv4Address(number & _LOW)]
    return [address]


def _metadata_behind_shorter_prefixes(number: int) -> list[IPv4Address]:
    """Metadata addresses in a local-use NAT64 address (RFC 8215) behind a prefix shorter than the usual /96.

    Such a prefix is followed by the IPv4 address, in which bits 64 to 71 are left out (RFC 6052, section 2.2). Which
    prefix a network has cannot be seen here, and most of what is read in this way is no address. So of these readings
    metadata alone counts.
    """
    without_gap = number >> 64 << 56 | number & (1 << 56) - 1
    readings = [IPv4Address(without_gap >> (88 - prefix) & _LOW) for prefix in _SHORTER_PREFIXES]
    return [reading for reading in readings if any(reading in network for network in _METADATA)]
