"""Which addresses calls have, and which peers are told."""

from __future__ import annotations

import ipaddress

import pytest

from auricle.transports.ice import IceNetwork

ANY_PORT = range(0, 1)


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("localhost", ["127.0.0.1"]),
        ("192.0.2.1", ["192.0.2.1"]),
        ("::1", ["::1"]),
    ],
)
def test_calls_are_where_the_server_listens(host: str, addresses: list[str]):
    assert IceNetwork(host, ANY_PORT).bound_addresses == addresses


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_server_that_listens_everywhere_takes_calls_everywhere_also_on_loopback(host: str):
    addresses = IceNetwork(host, ANY_PORT).bound_addresses
    assert "127.0.0.1" in addresses
    assert not any(ipaddress.ip_address(address).is_unspecified for address in addresses)
    assert len(set(addresses)) == len(addresses)


def test_peers_are_told_the_address_that_is_set_instead_of_the_sockets():
    network = IceNetwork("0.0.0.0", ANY_PORT, ["203.0.113.7", "2001:db8::7"])
    assert network.advertised_for("10.0.0.2") == ["203.0.113.7"]
    assert network.advertised_for("fe80::1") == ["2001:db8::7"]
    assert IceNetwork("0.0.0.0", ANY_PORT).advertised_for("10.0.0.2") == ["10.0.0.2"]


def test_who_comes_from_elsewhere_does_not_find_us_on_loopback():
    assert "127.0.0.1" not in IceNetwork("0.0.0.0", ANY_PORT, ["203.0.113.7"]).bound_addresses
    assert IceNetwork("127.0.0.1", ANY_PORT, ["203.0.113.7"]).bound_addresses == ["127.0.0.1"]
