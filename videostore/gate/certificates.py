"""The gate's certificate, by an authority of the site's own, so that TLS needs nothing from outside.

``tls/ca.pem`` is what people's machines trust; its key and the gate's are in ``secrets/``. The gate's
certificate lives for a quarter of a year and is renewed by itself a month before its end. X.509 by RFC 5280.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from videostore.domain.errors import ConfigInvalid
from videostore.durable import write_file

AUTHORITY_LIVES = timedelta(days=3650)
CERTIFICATE_LIVES = timedelta(days=90)
RENEWED_BEFORE = timedelta(days=30)
_EARLY = timedelta(hours=1)  # a client whose clock is a little behind


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """Where authority and certificate of a site are; ``names`` are the hosts that people type."""

    site: str
    names: Collection[str]
    root: Path

    @property
    def authority(self) -> Path:
        return self.root / "tls" / "ca.pem"

    @property
    def certificate(self) -> Path:
        return self.root / "tls" / "gate.pem"

    @property
    def key(self) -> Path:
        return self.root / "secrets" / "gate.key"

    def renew(self, *, now: datetime) -> datetime:
        """Make what is missing, near its end or for other names. Returns when the certificate ends.

        Raises ConfigInvalid if the authority's files are damaged.
        """
        authority_key = self._private(self.root / "secrets" / "ca.key", self.authority, now)
        try:
            authority = x509.load_pem_x509_certificate(self.authority.read_bytes())
        except (OSError, ValueError) as error:
            raise _damaged(self.authority, error) from error
        found = self._found(authority, now)
        if found is None:
            found = self._issue(authority, authority_key, now)
        return found.not_valid_after_utc

    def _found(self, authority: x509.Certificate, now: datetime) -> x509.Certificate | None:
        """Return the certificate there is, if it is still good."""
        try:
            found = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            found.verify_directly_issued_by(authority)
            key = _load(self.key)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, it is made anew
            return None
        good = (
            found.not_valid_before_utc <= now < found.not_valid_after_utc - RENEWED_BEFORE
            and _names_of(found) == set(self.names)
            and key.public_key() == found.public_key()
        )
        return found if good else None

    def _issue(
        self, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey, now: datetime
    ) -> x509.Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_general_name(name) for name in sorted(self.names)])
        certificate = (
            _builder(f"videostore gate of {self.site}", authority.subject, key, now, CERTIFICATE_LIVES)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_issuer_of(authority), critical=False)
            .sign(authority_key, SHA256())
        )
        write_file(self.key, _pem(key), mode=0o600)
        write_file(self.certificate, certificate.public_bytes(Encoding.PEM), mode=0o644)
        return certificate

    def _private(self, path: Path, public: Path, now: datetime) -> ec.EllipticCurvePrivateKey:
        """Return the authority's key; make the authority if there is none yet."""
        if path.exists() or public.exists():
            try:
                return _load(path)
            except (OSError, ValueError, TypeError) as error:
                raise _damaged(path, error) from error
        key = ec.generate_private_key(ec.SECP256R1())
        name = f"videostore {self.site}"
        authority = (
            _builder(name, _name(name), key, now, AUTHORITY_LIVES)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
            .sign(key, SHA256())
        )
        write_file(path, _pem(key), mode=0o600)
        write_file(public, authority.public_bytes(Encoding.PEM), mode=0o644)
        return key


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def ends_at(certificate: Path) -> datetime:
    """Return when the certificate in a PEM file ends. Raises ConfigInvalid."""
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise _damaged(certificate, error) from error


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, lives: timedelta
) -> x509.CertificateBuilder:
    moment = now.astimezone(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - _EARLY)
        .not_valid_after(moment + lives)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _issuer_of(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_of(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def _load(path: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path.name} is no key of an elliptic curve")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _damaged(path: Path, error: Exception) -> ConfigInvalid:
    return ConfigInvalid(
        f"cannot read {path}: {error}",
        hint="Restore it; or remove tls/ and secrets/ca.key, and hand out the new tls/ca.pem.",
    )
