"""Where calls are reached: the addresses and UDP ports that ICE (RFC 8445) offers to peers."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # most servers never take a call
    from aioice import Candidate, Connection
    from aioice.ice import StunProtocol


@dataclass(frozen=True, slots=True)
class IceNetwork:
    """What of the network calls may use."""

    host: str
    """The address that the server listens on. Calls use the same, or with 0.0.0.0 or :: all that there are."""
    ports: range
    """UDP ports, one for each address of each call; (0,) takes free ones."""
    advertised: Sequence[str] = ()
    """The addresses that peers are told instead of those that sockets have: the server is reached through NAT."""

    @property
    def bound_addresses(self) -> list[str]:
        """The addresses that a call's sockets have."""
        try:
            is_any = ipaddress.ip_address(self.host).is_unspecified
        except ValueError:  # one of this machine's names, which it knows itself
            return [socket.gethostbyname(self.host)]
        if not is_any:
            return [self.host]
        from aioice.ice import get_host_addresses

        # A browser on this machine may have no other way than the loopback address. Nobody comes to it from elsewhere.
        loopback = () if self.advertised else ("127.0.0.1",)
        return [*get_host_addresses(use_ipv4=True, use_ipv6=":" in self.host), *loopback]

    def advertised_for(self, address: str) -> list[str]:
        """What peers are told of a socket with this address."""
        version = ipaddress.ip_address(address).version
        told = [other for other in self.advertised if ipaddress.ip_address(other).version == version]
        return told if self.advertised else [address]


def use_network(connection: Connection, network: IceNetwork) -> None:
    """Have a connection gather the network's candidates instead of any address on any port. Asks no other server."""

    async def gather(component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:  # noqa: ASYNC109
        candidates = []
        for address in network.bound_addresses:
            protocol = await _bind(connection, address, network.ports)
            if protocol is None:
                continue
            port: int = protocol.transport.get_extra_info("sockname")[1]
            protocol.local_candidate = _host_candidate(component, address, port)
            connection._protocols.append(protocol)
            candidates += [_host_candidate(component, told, port) for told in network.advertised_for(address)]
        return candidates

    assert hasattr(connection, "get_component_candidates")
    connection.get_component_candidates = gather  # type: ignore[method-assign]


async def _bind(connection: Connection, address: str, ports: range) -> StunProtocol | None:
    from aioice.ice import StunProtocol

    loop = asyncio.get_running_loop()
    for port in random.sample(ports, len(ports)):
        try:
            _, protocol = await loop.create_datagram_endpoint(
                lambda: StunProtocol(connection), local_addr=(address, port)
            )
        except OSError:  # taken, or the address is not ours
            continue
        return protocol
    return None


def _host_candidate(component: int, address: str, port: int) -> Candidate:
    from aioice.candidate import Candidate, candidate_foundation, candidate_priority

    return Candidate(
        foundation=candidate_foundation("host", "udp", address),
        component=component,
        transport="udp",
        priority=candidate_priority(component, "host"),
        host=address,
        port=port,
        type="host",
    )
