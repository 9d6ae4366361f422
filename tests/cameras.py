"""Synthetic cameras for the tests, on loopback."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from videostore.synthetic.server import SyntheticCamera, SyntheticServer
from videostore.synthetic.stream import Stream, stream

LOOP = 10  # seconds


@contextmanager
def serving(
    *paths: str, film: Stream | None = None, tls: ssl.SSLContext | None = None, **faults: object
) -> Iterator[SyntheticServer]:
    """Serve a camera at each path. A path ``user:password@path`` wants a login."""
    cameras = []
    for path in paths:
        login, _, name = path.rpartition("@")
        user, _, password = login.partition(":")
        cameras.append(SyntheticCamera(name, film or stream(LOOP), user, password, **faults))
    with SyntheticServer(cameras, tls=tls) as server:
        yield server


class Authority:
    """A private certificate authority; ``file`` is its certificate."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self.file = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def context(self, name: str) -> ssl.SSLContext:
        """Return the TLS side of a camera called ``name``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(name).configure_cert(context)
        return context


def self_signed(directory: Path, *, name: str = "camera") -> tuple[ssl.SSLContext, str]:
    """Return the TLS side of a camera that vouches for itself, and the fingerprint of its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    files = directory / f"{name}.pem", directory / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context, certificate.fingerprint(hashes.SHA256()).hex()


@contextmanager
def web_server() -> Iterator[int]:
    """Be something that is no camera, for one connection; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()
