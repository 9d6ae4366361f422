"""An age file to one X25519 recipient, written as it grows (age-encryption.org/v1; C2SP, age.md).

For the segment being recorded: a file that ends after each group, and goes on all the same. Whole files are
sealed and opened by ``sealing``; what is written here opens with pyrage and with the ``age`` program.

No nonce serves two messages. The counter of a chunk stands in its nonce, and whether it is the last one; so
a chunk is sealed once as one of many, and as the last one only as often as it has the same content.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from videostore.domain.errors import KeyUnavailable

CHUNK = 64 * 1024
"""Bytes of a chunk before it is sealed; only the last one is shorter."""
_TAG = 16
_VERSION = b"age-encryption.org/v1"
_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


class AgeStream:
    """``write`` is given what is to stand in the file, in order; it keeps nothing of it."""

    def __init__(self, recipient: str, write: Callable[[bytes | memoryview], None]) -> None:
        """Raises KeyUnavailable if ``recipient`` is no age recipient."""
        file_key, nonce = secrets.token_bytes(16), secrets.token_bytes(16)
        self._cipher = ChaCha20Poly1305(_derived(file_key, salt=nonce, info=b"payload"))
        self._write = write
        self._number = 0  # of the chunk that is being filled
        self._filled = 0
        self._plain, self._sealed = bytearray(CHUNK), memoryview(bytearray(CHUNK + _TAG))
        self._ended = (-1, 0)  # the chunk that was last sealed as the last one, and how full it was
        write(_header(recipient, file_key) + nonce)

    def add(self, data: bytes | memoryview) -> None:
        """Take ``data``; write the chunks that are full and followed by something."""
        rest = memoryview(data)
        while rest:
            if self._filled == CHUNK:
                self._cipher.encrypt_into(self._nonce(last=False), self._plain, None, self._sealed)
                self._number, self._filled = self._number + 1, 0
                self._write(self._sealed)
            taken = min(CHUNK - self._filled, len(rest))
            self._plain[self._filled : self._filled + taken] = rest[:taken]
            self._filled += taken
            rest = rest[taken:]

    @property
    def may_end(self) -> bool:
        """Whether the file may end here: not if its chunk has been the last one already, with less in it."""
        return self._filled > 0 and (self._ended[0] < self._number or self._ended[1] == self._filled)

    @property
    def room(self) -> int:
        """Return how many bytes the chunk that is being filled can take."""
        return CHUNK - self._filled

    def end(self) -> bytes:
        """Return the last chunk of the file as it stands. It may grow on."""
        if not self.may_end:
            raise ValueError("a chunk that was the last one has got more in it")
        self._ended = self._number, self._filled
        with memoryview(self._plain) as plain:
            return self._cipher.encrypt(self._nonce(last=True), plain[: self._filled], None)

    def _nonce(self, *, last: bool) -> bytes:
        return self._number.to_bytes(11, "big") + bytes([last])


def _header(recipient: str, file_key: bytes) -> bytes:
    theirs = _public_half(recipient)
    ours = X25519PrivateKey.generate()
    share = ours.public_key().public_bytes_raw()
    try:
        secret = ours.exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError as error:  # a point of low order: the secret would be none
        raise _no_recipient(recipient) from error
    wrap = _derived(secret, salt=share + theirs, info=_VERSION + b"/X25519")
    body = ChaCha20Poly1305(wrap).encrypt(bytes(12), file_key, None)
    lines = (_VERSION, b"-> X25519 " + _base64(share), _base64(body), b"---")
    head = b"\n".join(lines)
    mac = HMAC(_derived(file_key, salt=b"", info=b"header"), SHA256())
    mac.update(head)
    return head + b" " + _base64(mac.finalize()) + b"\n"


def _derived(key: bytes, *, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=salt, info=info).derive(key)


def _base64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _public_half(recipient: str) -> bytes:
    """Return the 32 bytes of an age recipient: Bech32 (BIP 173) with the prefix ``age``."""
    prefix, _, text = recipient.rpartition("1")
    if prefix != "age" or len(text) != 58 or not set(text) <= set(_ALPHABET):
        raise _no_recipient(recipient)
    values = [_ALPHABET.index(one) for one in text]
    expanded = [ord(one) >> 5 for one in prefix] + [0] + [ord(one) & 31 for one in prefix]
    bits = 0
    for value in values[:-6]:
        bits = bits << 5 | value
    if _checksum([*expanded, *values]) != 1 or bits & 0xF:
        raise _no_recipient(recipient)
    return (bits >> 4).to_bytes(32, "big")


def _checksum(values: list[int]) -> int:
    check = 1
    for value in values:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            check ^= generator if top >> bit & 1 else 0
    return check


def _no_recipient(recipient: str) -> KeyUnavailable:
    return KeyUnavailable(
        f"{recipient!r} is not an age recipient",
        hint="Publish the hour keys again: `videostore run retention`.",
    )
