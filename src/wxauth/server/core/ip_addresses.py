"""IP addresses in a canonical form, and the networks that they belong to."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple

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

    def network_in_sql(self, address: str) -> str:
        """`network_of` as an expression of SQL. `address` is one, too."""
        return f"network(set_masklen({address}, {self.length_in_sql(address)}))"

    def length_in_sql(self, address: str) -> str:
        """The length for the version of an address, as an expression of SQL. `address` is one, too."""
        return f"CASE family({address}) WHEN 4 THEN {self.v4} ELSE {self.v6} END"


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
