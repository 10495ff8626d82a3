"""To which addresses a webhook may lead: what a URL must not make this service reach for somebody else."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal

Scheme = Literal["http", "https"]

_PRIVATE: Final = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7", "::1/128"))
)
_NEVER: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this host, whichever it is
            "169.254.0.0/16",  # link-local; the metadata of most clouds too
            "100.100.100.200/32",  # Alibaba's metadata
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and the broadcast address
            "::/128",
            "fe80::/10",
            "fec0::/10",
            "ff00::/8",
            "fd00:ec2::254/128",  # Amazon's metadata
        ),
    )
)
# In which bits of the address another one is: from the right, 0 being the last 32.
_HOLDERS: Final = (
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # translated (SIIT)
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("64:ff9b:1::/48"), 0),  # NAT64 of one's own, of which /96 is the usual form
    (IPv6Network("2002::/16"), 80),  # 6to4
    (IPv6Network("::/96"), 0),  # IPv4-compatible
)
_TEREDO: Final = IPv6Network("2001::/32")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)
_LOW: Final = 0xFFFF_FFFF

Address = IPv4Address | IPv6Address


def is_refused(address: str, scheme: Scheme) -> bool:
    """Whether nothing may be sent there.

    Never to link-local, multicast, unspecified and metadata addresses; without TLS to private ones alone. What is
    inside another address counts as what it is.
    """
    return any(_is_refused(each, scheme) for each in _all_in(ip_address(address.partition("%")[0])))


def _is_refused(address: Address, scheme: Scheme) -> bool:
    if any(address in network for network in _NEVER):
        return True
    return scheme == "http" and not any(address in network for network in _PRIVATE)


def _all_in(address: Address) -> list[Address]:
    """The address that counts, or several where it can be read in more than one way."""
    if isinstance(address, IPv4Address) or int(address) <= 1:  # `::` and `::1` are no IPv4-compatible ones
        return [address]
    number = int(address)
    for network, shift in _HOLDERS:
        if address in network:
            return [IPv4Address(number >> shift & _LOW)]
    if address in _TEREDO:
        return [IPv4Address(number >> 64 & _LOW), IPv4Address(~number & _LOW)]
    if number >> 32 & _LOW in _ISATAP:
        return [address, IPv4Address(number & _LOW)]
    return [address]
