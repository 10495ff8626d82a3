"""IP addresses in a canonical form."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Parse an address. An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) becomes the IPv4 address.

    A zone (`fe80::1%eth0`) is left out, because PostgreSQL has none.

    Raises: ValueError, if the text is no address.
    """
    address = ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def network_of(ip: str) -> str:
    """The /24 network of an IPv4 address or the /48 of an IPv6 address, shown where the address itself must not be."""
    address = plain_address(ip)
    return str(ip_network((address, 24 if address.version == 4 else 48), strict=False))
