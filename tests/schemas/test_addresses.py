"""Which addresses may be connected to."""

import socket
from ipaddress import ip_address, ip_network

import pytest

from schemas.addresses import RefusedAddressError, guarded_socket_factory, is_allowed


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:8.8.8.8"]
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "255.255.255.255"),
        *("100.64.0.1", "192.0.0.8", "192.88.99.1", "224.0.0.1", "240.0.0.1", "168.63.129.16", "198.18.0.1"),
        *("::1", "::", "::7f00:1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b:1::1"),
        *("2002:7f00:1::", "2001::1", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "3fff::1", "2001:db8::1"),
    ],
)
def test_addresses_that_lead_inside_are_refused(address: str) -> None:
    assert not is_allowed(ip_address(address))


def test_an_extra_network_is_allowed_and_nothing_beside_it() -> None:
    extra = (ip_network("10.1.0.0/16"),)
    assert is_allowed(ip_address("10.1.2.3"), extra)
    assert is_allowed(ip_address("::ffff:10.1.2.3"), extra)
    assert not is_allowed(ip_address("10.2.0.1"), extra)


@pytest.mark.parametrize(
    ("family", "address", "port"),
    [(socket.AF_INET, "10.0.0.1", 80), (socket.AF_INET, "8.8.8.8", 22), (socket.AF_INET6, "fe80::1%eth0", 80)],
)
def test_no_socket_is_made_for_a_refused_address_or_port(family: int, address: str, port: int) -> None:
    make = guarded_socket_factory(frozenset({80}), ())
    with pytest.raises(RefusedAddressError):
        make((family, socket.SOCK_STREAM, 6, "", (address, port)))


def test_a_socket_is_made_for_a_public_address() -> None:
    make = guarded_socket_factory(frozenset({80}), ())
    with make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))) as made:
        assert made.family == socket.AF_INET
