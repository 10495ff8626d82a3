"""IP addresses in one form, so that they can be compared."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """The address in this text. An IPv4 address that is mapped into IPv6 (`::ffff:192.0.2.1`) becomes the IPv4 address.

    A zone (`fe80::1%eth0`) is left out: PostgreSQL knows none.

    Raises: ValueError, if there is no address.
    """
    address = ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def network_of(ip: str) -> str:
    """The /24 around an address, or the /48 of an IPv6 address, for where the address itself is too much to tell."""
    address = plain_address(ip)
    return str(ip_network((address, 24 if address.version == 4 else 48), strict=False))
