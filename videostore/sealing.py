"""Sealing: the age file format, to one X25519 recipient.

The only place that imports pyrage. Anyone can check our files with the ``age`` program;
format: age-encryption.org/v1.
"""

from __future__ import annotations

from io import RawIOBase
from pathlib import Path
from typing import IO

from pyrage import (
    DecryptError,
    IdentityError,
    RecipientError,
    decrypt,
    decrypt_io,
    encrypt,
    encrypt_io,
    x25519,
)

from videostore.domain.errors import KeyUnavailable, SealBroken


def new_identity() -> tuple[str, str]:
    """Return a fresh key pair as ``(identity, recipient)``: ``AGE-SECRET-KEY-1…`` and ``age1…``."""
    identity = x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def read_identity(path: Path) -> str:
    """Return the private key of a file as ``age-keygen`` writes it. Raises KeyUnavailable."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnavailable(f"cannot read the key {path}: {error}") from error
    found = [line for line in lines if line.startswith("AGE-SECRET-KEY-")]
    if len(found) != 1:
        raise KeyUnavailable(f"{path} does not hold one age key", hint="Name the file of `age-keygen`.")
    return found[0]


def seal(data: bytes, *, recipient: str) -> bytes:
    """Encrypt ``data`` to ``recipient``. Raises KeyUnavailable if that is no age recipient."""
    try:
        return encrypt(data, [x25519.Recipient.from_str(recipient)])  # type: ignore[no-any-return,unused-ignore]
    except RecipientError as error:
        raise KeyUnavailable(
            f"{recipient!r} is not an age recipient",
            hint="Publish the hour keys again: `videostore run retention`.",
        ) from error


def open_sealed(sealed: bytes, *, identity: str) -> bytes:
    """Decrypt and authenticate ``sealed``. Raises SealBroken if it was altered or is for another key."""
    try:
        return decrypt(sealed, [x25519.Identity.from_str(identity)])  # type: ignore[no-any-return,unused-ignore]
    except DecryptError as error:
        raise SealBroken(
            f"the seal does not open: {error}",
            hint="The stored bytes were altered or belong to another hour; run `videostore check`.",
        ) from error


def seal_stream(source: IO[bytes], sealed: IO[bytes], *, recipient: str) -> None:
    """Encrypt ``source`` to ``recipient`` as it comes. Raises KeyUnavailable if that is no age recipient."""
    try:
        encrypt_io(source, sealed, [x25519.Recipient.from_str(recipient)])
    except RecipientError as error:
        raise KeyUnavailable(f"{recipient!r} is not an age recipient", hint="It begins with age1.") from error


def open_stream(sealed: IO[bytes], opened: IO[bytes] | RawIOBase, *, identity: str) -> None:
    """Decrypt ``sealed`` as it comes. Raises SealBroken if it was cut, altered or is for another key: what
    came out until then is not to be believed."""
    try:
        decrypt_io(sealed, opened, [x25519.Identity.from_str(identity)])
    except (DecryptError, IdentityError) as error:
        raise SealBroken(f"the seal does not open: {error}") from error
    except OSError as error:
        if error.errno is None:  # what pyrage says of a stream that ends early
            raise SealBroken("the seal does not open: it was cut off, or altered") from error
        raise
