"""Certificates that the server signs itself."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from conftest import RunningServer
from cryptography import x509
from wire import open_wire

from auricle.http import tls
from auricle.http.tls import self_signed


def names(certificate: Path) -> list[object]:
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    return [name.value for name in found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]


def test_the_certificate_names_this_machine_and_the_address(tmp_path: Path) -> None:
    found = names(self_signed(tmp_path / "tls", "192.0.2.7").certificate)
    assert {"localhost", socket.gethostname(), ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")} <= {
        *found
    }
    assert ipaddress.ip_address("192.0.2.7") in found
    assert ipaddress.ip_address("0.0.0.0") not in names(self_signed(tmp_path / "all", "0.0.0.0").certificate)


def test_the_key_is_nobody_elses_to_read(tmp_path: Path) -> None:
    signed = self_signed(tmp_path / "tls", "127.0.0.1")
    assert stat.S_IMODE(signed.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(signed.key.parent.stat().st_mode) == 0o700


def test_the_certificate_stays_from_start_to_start(tmp_path: Path) -> None:
    first = self_signed(tmp_path, "127.0.0.1")
    assert self_signed(tmp_path, "127.0.0.1").fingerprint == first.fingerprint
    assert len(first.fingerprint.split(":")) == 32


@pytest.mark.parametrize(
    "damage", ["another host", "no key", "no certificate", "another key", "half a file", "too old"]
)
def test_one_that_does_not_suit_is_replaced(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if damage == "too old":
        monkeypatch.setattr(tls, "_VALID_DAYS", 20)
    first = self_signed(tmp_path, "127.0.0.1")
    monkeypatch.undo()
    match damage:
        case "no key":
            first.key.unlink()
        case "no certificate":
            first.certificate.unlink()
        case "another key":
            first.key.write_bytes(self_signed(tmp_path / "other", "127.0.0.1").key.read_bytes())
        case "half a file":
            first.certificate.write_bytes(first.certificate.read_bytes()[:200])
    second = self_signed(tmp_path, "192.0.2.7" if damage == "another host" else "127.0.0.1")
    assert second.fingerprint != first.fingerprint
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(second.certificate, second.key)  # raises unless they belong together


def test_a_new_place_keeps_the_old_names(tmp_path: Path) -> None:
    self_signed(tmp_path, "192.0.2.7")
    there = self_signed(tmp_path, "192.0.2.8")
    assert {ipaddress.ip_address("192.0.2.7"), ipaddress.ip_address("192.0.2.8")} <= {*names(there.certificate)}
    assert self_signed(tmp_path, "192.0.2.7").fingerprint == there.fingerprint


def test_a_name_that_no_certificate_can_have_is_left_out(tmp_path: Path) -> None:
    assert "localhost" in names(self_signed(tmp_path, "höhle").certificate)


def test_a_server_signs_its_own_certificate(server_with: Callable[..., RunningServer], tmp_path: Path) -> None:
    server = server_with("--tls", "self-signed", AURICLE_STATE_DIR=str(tmp_path))
    assert server.base_url.startswith("https://127.0.0.1:")
    certificate = tmp_path / "tls" / "certificate.pem"
    fingerprint = self_signed(tmp_path / "tls", "127.0.0.1").fingerprint
    assert any(fingerprint in line and str(certificate) in line for line in server.output)
    context = ssl.create_default_context(cafile=certificate)
    for host in ("127.0.0.1", "localhost"):
        answer = httpx.get(server.root_url.replace("127.0.0.1", host) + "/health", verify=context)
        assert answer.json()["status"] == "ok"
    with open_wire(server.socket_url, ssl=context) as wire:
        wire.update(turn_detection=None)
    with pytest.raises(httpx.ConnectError, match=r"(?i)self.signed"):
        httpx.get(server.root_url + "/health")
