"""Signatures: Ed25519 over the canonical form of a JSON object.

One way to sign for ledger records, checkpoints, approvals and acknowledgements, so that one
description (docs/reference/signatures.md) lets an outsider check them all. A signed document is
the object plus ``"signature"``; a context string keeps a signature made for one kind of document
from being valid for another.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

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

    @property
    def public(self) -> str:
        """The public half as text: ``ed25519:`` and 32 bytes in base64."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return PREFIX + base64.b64encode(raw).decode()

    def sign(self, document: Mapping[str, Json], *, context: str) -> str:
        """Return the signature (base64) over ``context``, a zero byte and the canonical document."""
        return base64.b64encode(self._key.sign(_message(document, context))).decode()


def is_public_key(text: str) -> bool:
    """Say whether ``text`` is a public key as ``SigningKey.public`` writes it."""
    try:
        raw = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, TypeError, binascii.Error):
        return False
    return text.startswith(PREFIX)


def verify(document: Mapping[str, Json], signature: str, *, public: str, context: str) -> bool:
    """Say whether ``signature`` is by the key ``public``; anything malformed is just not valid."""
    try:
        raw = base64.b64decode(public.removeprefix(PREFIX), validate=True)
        key = Ed25519PublicKey.from_public_bytes(raw)
        key.verify(base64.b64decode(signature, validate=True), _message(document, context))
    except (InvalidSignature, ValueError, TypeError, binascii.Error):
        return False
    return public.startswith(PREFIX)


def _message(document: Mapping[str, Json], context: str) -> bytes:
    return b"videostore " + context.encode() + b"\x00" + canonical(document)
