"""Which network addresses strangers may make us connect to: decided on the address that is connected to, never on its name."""

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network
REFUSAL = "address not allowed"

# What `ipaddress` calls global although it leads to private places: translated and tunnelled IPv4, documentation, protocol
# assignments, shared address space, and a cloud's host.
_NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "::/96",
        "3fff::/20",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "100.64.0.0/10",
        "168.63.129.16/32",
    )
)


class RefusedAddressError(OSError):
    """An address that this policy does not connect to."""

    def __init__(self) -> None:
        super().__init__(REFUSAL)


def is_allowed(address: IPv4Address | IPv6Address, extra: Sequence[Network] = ()) -> bool:
    """True for a public unicast address, and for any in `extra`."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return is_allowed(address.ipv4_mapped, extra)
    if any(address in network for network in extra):
        return True
    if isinstance(address, IPv6Address) and (address.sixtofour or address.teredo or address.is_site_local):
        return False
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
        or address.is_private
    )


def guarded_socket_factory(ports: frozenset[int], extra: Sequence[Network]) -> Callable[[Any], socket.socket]:
    """A factory for aiohttp's connector that makes sockets for allowed addresses and ports only.

    It sees address literals, resolved names and every hop of a redirect, and nothing lies between this check and the connection,
    so a name that resolves differently a moment later gains nothing. Raises RefusedAddressError.
    """

    def make(address_info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, where = address_info
        address = ip_address(str(where[0]).partition("%")[0])
        if not is_allowed(address, extra) or where[1] not in ports:
            raise RefusedAddressError
        return socket.socket(family, kind, protocol)

    return make
