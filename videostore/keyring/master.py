"""The master key as a file: 32 bytes a generation, the newest first.

A private half is wrapped with ChaCha20-Poly1305 under HKDF-SHA-256(generation, context), the context
authenticated with it. The file is read at each use, so what another process rotated counts here at once,
and it is refused when anybody but its owner can read it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from videostore.domain.errors import KeyUnavailable, SealBroken
from videostore.durable import replace_secret
from videostore.ports import MasterKey

_BYTES = 32
_NONCE_BYTES = 12


class MasterKeyFile:
    """Port MasterKey, in one file of mode 0600. Keep it on another device than the keyring."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def wrap(self, secret: bytes, *, context: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + _cipher(self._generations()[0], context).encrypt(nonce, secret, context)

    def unwrap(self, wrapped: bytes, *, context: bytes) -> bytes:
        nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
        for generation in self._generations():
            try:
                return _cipher(generation, context).decrypt(nonce, sealed, context)
            except (InvalidTag, ValueError):
                continue
        raise SealBroken(
            f"no generation of the master key {self._path} opens this",
            hint="The wrapped key, its header or the master key was altered; restore them as they were.",
        )

    def renew(self) -> None:
        older = self._generations() if self._path.exists() else []
        replace_secret(self._path, b"".join([os.urandom(_BYTES), *older]))

    def retire(self) -> None:
        replace_secret(self._path, self._generations()[0])

    def _generations(self) -> list[bytes]:
        try:
            mode = self._path.stat().st_mode
            data = self._path.read_bytes()
        except OSError as error:
            raise KeyUnavailable(
                f"the master key {self._path} cannot be read: {error.strerror}",
                hint="Mount the device that holds it, or correct keyring.master_key.",
            ) from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyUnavailable(
                f"the master key {self._path} is open to others than its owner: mode {mode & 0o777:04o}",
                hint=f"chmod 600 {self._path}, find out who could read it, then `videostore keyring rotate`.",
            )
        if not data or len(data) % _BYTES:
            raise KeyUnavailable(
                f"{self._path} is not a master key: it has {len(data)} bytes, not a multiple of {_BYTES}",
                hint="Restore the file that `videostore init` or `videostore keyring rotate` made.",
            )
        return [data[at : at + _BYTES] for at in range(0, len(data), _BYTES)]


def try_out(master: MasterKey) -> str:
    """Wrap and unwrap something. Raises KeyUnavailable if the master key does not do what it must."""
    secret = os.urandom(_BYTES)
    if master.unwrap(master.wrap(secret, context=b"try out"), context=b"try out") != secret:
        raise KeyUnavailable("the master key does not unwrap what it wrapped")
    return "wraps and unwraps"


def _cipher(generation: bytes, context: bytes) -> ChaCha20Poly1305:
    info = b"videostore hour key " + context
    return ChaCha20Poly1305(HKDF(SHA256(), _BYTES, salt=None, info=info).derive(generation))
