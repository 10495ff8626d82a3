"""Certificates for loopback: those of an authority, and those of servers that it signs."""

import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """A certificate authority."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        own = self._builder(self._name, self._key).add_extension(constraints, critical=True)
        own = own.add_extension(_SIGNS_CERTIFICATES, critical=True)
        self.file = folder / "authority.pem"
        self.file.write_bytes(own.sign(self._key, SHA256()).public_bytes(Encoding.PEM))
        self.key_file = folder / "authority.key"
        self.key_file.write_bytes(_private(self._key))

    def trusted(self) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts this authority."""
        return ssl.create_default_context(cafile=self.file)

    def server(self, *hosts: str, days: int = 2, has_key_ids: bool = True) -> ssl.SSLContext:
        """Return the TLS context of a server with these host names.

        A negative number of days makes its certificate expired. Without `has_key_ids`, the certificate lacks key
        identifiers. Python 3.13 and newer reject such certificates, which many companies' own authorities issue.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName(_general_names(hosts))
        builder = self._builder(x509.Name([]), key, days=days, has_key_ids=has_key_ids)
        builder = builder.add_extension(names, critical=True)
        path = self._folder / "server.pem"
        path.write_bytes(_private(key) + builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: int = 2, has_key_ids: bool = True
    ) -> x509.CertificateBuilder:
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=10))
            .not_valid_after(now + timedelta(days=days))
        )
        if not has_key_ids:
            return builder
        own, signer = x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier
        return builder.add_extension(own.from_public_key(key.public_key()), critical=False).add_extension(
            signer.from_issuer_public_key(self._key.public_key()), critical=False
        )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _general_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names
