"""Certificates that the server signs itself, for machines that nobody gave a real one."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID_DAYS = 397
"""Longer than that, browsers take no certificate."""
_MAX_NAMES = 50
_RENEW_DAYS = 30
"""One that ends within this time is replaced at the start."""


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path
    fingerprint: str
    """SHA-256 of the certificate, as browsers show it: pairs of hex digits with colons between."""


def self_signed(folder: Path, host: str) -> SelfSigned:
    """The certificate in `folder`, made there if there is none that suits a server at `host`.

    It stays the same from start to start while the machine has no new name or address, so that a browser has to be told
    only once to trust it; in a new place the old names are kept. Raises OSError: the folder can't be written.
    """
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = _general_names([host, "localhost", "127.0.0.1", "::1", *_machine_names()])
    found = _read(certificate, key)
    known = _names_of(found) if found else []
    if found is None or not _is_fresh(found) or not set(names) <= set(known):
        names = list(dict.fromkeys([*names, *known]))[:_MAX_NAMES]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_key = ec.generate_private_key(ec.SECP256R1())
        found = _sign(private_key, names)
        _write_secret(key, private_key)
        certificate.write_bytes(found.public_bytes(serialization.Encoding.PEM))
    return SelfSigned(certificate, key, found.fingerprint(hashes.SHA256()).hex(":").upper())


def _machine_names() -> list[str]:
    """Names and addresses under which others in the network may know this machine."""
    name = socket.gethostname()
    addresses = []
    # Connecting a datagram socket sends nothing, but picks the address that others are reached from.
    for family, remote in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((remote, 9))
            addresses.append(probe.getsockname()[0])
    return [name, f"{name.split('.')[0]}.local", *addresses]


def _read(certificate: Path, key: Path) -> x509.Certificate | None:
    """The certificate, if it is there whole and the key is its own."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        private_key = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (FileNotFoundError, ValueError):
        return None
    return found if found.public_key() == private_key.public_key() else None


def _is_fresh(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_after_utc > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=_RENEW_DAYS)


def _names_of(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    found: dict[x509.GeneralName, None] = {}  # a set that keeps its order
    for name in names:
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            with contextlib.suppress(ValueError):  # no name that a certificate can have
                found[x509.DNSName(name)] = None
            continue
        if not address.is_unspecified:
            found[x509.IPAddress(address)] = None
    return list(found)


def _sign(key: ec.EllipticCurvePrivateKey, names: Sequence[x509.GeneralName]) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Auricle")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks of other machines may be behind
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS - 1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        # No authority: who trusts it (curl --cacert, NODE_EXTRA_CA_CERTS) trusts this server and nobody else.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    return builder.sign(key, hashes.SHA256())


def _write_secret(file: Path, key: ec.EllipticCurvePrivateKey) -> None:
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
