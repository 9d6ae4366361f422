"""Signatures: Ed25519 over the canonical form of a JSON object; RSA over exports alone, as their format asks.

One way to sign for ledger records, checkpoints, approvals and acknowledgements, so that one
description (docs/reference/proofs.md) lets an outsider check them all. A signed document is
the object plus ``"signature"``; a context string keeps a signature made for one kind of document
from being valid for another.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from videostore.domain.errors import SignatureInvalid
from videostore.domain.ledger import Json, canonical
from videostore.durable import write_file

PREFIX = "ed25519:"


class SigningKey:
    """A private key in a PEM file (PKCS #8, mode 0600)."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def create(cls, path: Path) -> SigningKey:
        """Make a new key and write it to ``path``; an existing file is never replaced."""
        if path.exists():
            raise SignatureInvalid(
                f"{path} exists already", hint="Name a new file; a key is never overwritten."
            )
        key = Ed25519PrivateKey.generate()
        write_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
        return cls(key)

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SignatureInvalid(
                f"{path} does not hold a signing key: {error}",
                hint="Make one with `videostore staff key FILE`.",
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SignatureInvalid(
                f"{path} is not an Ed25519 key", hint="Make one with `videostore staff key FILE`."
            )
        return cls(key)

    @cached_property
    def public(self) -> str:
        """The public half as text: ``ed25519:`` and 32 bytes in base64."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return PREFIX + base64.b64encode(raw).decode()

    def sign(self, document: Mapping[str, Json], *, context: str) -> str:
        """Return the signature (base64) over ``context``, a zero byte and the canonical document."""
        return self.sign_canonical(canonical(document), context=context)

    def sign_canonical(self, data: bytes, *, context: str) -> str:
        """Return the signature over a document that is in its canonical form already."""
        return base64.b64encode(self._key.sign(_message(data, context))).decode()


def is_public_key(text: str) -> bool:
    """Say whether ``text`` is a public key as ``SigningKey.public`` writes it."""
    try:
        _public_key(text)
    except (ValueError, TypeError):
        return False
    return True


def verify(document: Mapping[str, Json], signature: str, *, public: str, context: str) -> bool:
    """Say whether ``signature`` is by the key ``public``; anything malformed is just not valid."""
    try:
        data = canonical(document)
    except (TypeError, ValueError):
        return False
    return verify_canonical(data, signature, public=public, context=context)


def verify_canonical(data: bytes, signature: str, *, public: str, context: str) -> bool:
    """The same for a document in its canonical form."""
    try:
        _public_key(public).verify(base64.b64decode(signature, validate=True), _message(data, context))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


@lru_cache(maxsize=16)
def _public_key(public: str) -> Ed25519PublicKey:
    """Read a public key, of which there is one spelling: base64 leaves bits over, and who could set them
    would be another person by the same key."""
    raw = base64.b64decode(public.removeprefix(PREFIX), validate=True)
    if public != PREFIX + base64.b64encode(raw).decode():
        raise ValueError("that is not how a public key is written")
    return Ed25519PublicKey.from_public_bytes(raw)


def _message(data: bytes, context: str) -> bytes:
    return b"videostore " + context.encode() + b"\x00" + data


class ExportKey:
    """The RSA key that signs what leaves, and its certificate: what ONVIF export files ask for."""

    def __init__(self, key: RSAPrivateKey, certificate: bytes) -> None:
        self._key = key
        self.certificate = certificate

    @classmethod
    def create(cls, path: Path, certificate: Path, *, name: str, now: datetime) -> ExportKey:
        """Make a key (mode 0600) and a certificate (PEM) that it signs itself; never replaces a key."""
        if path.exists():
            raise SignatureInvalid(f"{path} exists already", hint="A key is never overwritten.")
        key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"videostore export, {name}"[:64])])
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + _CERTIFIED)
            .sign(key, SHA256())
        )
        write_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
        write_file(certificate, made.public_bytes(Encoding.PEM))
        return cls(key, made.public_bytes(Encoding.DER))

    @classmethod
    def load(cls, path: Path, certificate: Path) -> ExportKey:
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
            public = x509.load_pem_x509_certificate(certificate.read_bytes())
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SignatureInvalid(
                f"{path} and {certificate} do not hold the export key: {error}",
                hint="An RSA key and its certificate, both PEM. The site's own are in its backup.",
            ) from error
        if not isinstance(key, RSAPrivateKey) or key.public_key() != public.public_key():
            raise SignatureInvalid(f"{certificate} is not the certificate of {path}", hint="Restore both.")
        return cls(key, public.public_bytes(Encoding.DER))

    @property
    def size_bytes(self) -> int:
        """How long a signature is."""
        return self._key.key_size // 8

    def sign(self, digest: bytes) -> bytes:
        """Return the signature over what hashes (SHA-256) to ``digest``."""
        return self._key.sign(digest, _PSS, Prehashed(SHA256()))


def verify_export(digest: bytes, signature: bytes, *, certificate: bytes) -> bool:
    """Say whether ``signature`` over what hashes to ``digest`` is by the key of ``certificate`` (DER)."""
    try:
        public = x509.load_der_x509_certificate(certificate).public_key()
        if not isinstance(public, RSAPublicKey):
            return False
        public.verify(signature, digest, _PSS, Prehashed(SHA256()))
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def subject_of(certificate: bytes) -> str:
    """Return whose certificate (DER) it says that it is (RFC 4514)."""
    try:
        return x509.load_der_x509_certificate(certificate).subject.rfc4514_string()
    except ValueError:
        return "somebody"


def read_certificate(path: Path) -> bytes:
    """Return the certificate of a PEM file as DER."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
    except (OSError, ValueError) as error:
        raise SignatureInvalid(
            f"{path} does not hold a certificate: {error}",
            hint="A PEM file; the site's is ledger/export.crt.",
        ) from error


_PSS = padding.PSS(padding.MGF1(SHA256()), salt_length=20)
"""As the ONVIF Export File Format Specification has it, section 5.7.2."""
_CERTIFIED = timedelta(days=3653)
