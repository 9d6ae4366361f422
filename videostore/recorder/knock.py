"""The first word with a camera: does anything listen, may it be trusted, does it speak RTSP?

libav says little about why a connection failed, and cannot pin a certificate; so this connection comes
first. What it found is handed to libav, which verifies for itself: neither trusts the other's connection.
Our own receiver goes on with a connection that was made here (``reach``).
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from videostore.domain.camera import Camera
from videostore.domain.errors import CameraNotRtsp, CameraUnreachable, CameraUntrusted, ConfigInvalid

_PATIENCE_SECONDS = 5
_PORTS = {"rtsp": 554, "rtsps": 322}


@contextmanager
def knock(camera: Camera, *, root: Path) -> Iterator[Mapping[str, str]]:
    """Connect and hang up; yield the options by which libav verifies the camera's certificate.

    They hold as long as the context: a pinned certificate is a temporary file. ``ca_file`` is relative to
    ``root``. Raises CameraUnreachable, CameraUntrusted or CameraNotRtsp, before any credential is sent.
    """
    host = urlsplit(camera.url).hostname or ""
    with tempfile.TemporaryDirectory(prefix="videostore-") as scratch:
        options: dict[str, str] = {}
        with reach(camera, root=root) as channel:
            if isinstance(channel, ssl.SSLSocket):
                if camera.fingerprint:
                    options = _pinned(channel, camera, Path(scratch) / "pinned.pem")
                else:
                    options = {"tls_verify": "1", "ca_file": _authorities(camera, root), "verifyhost": host}
            with _reported(camera, host):
                _ask(channel, camera)
        yield options


def reach(camera: Camera, *, root: Path) -> socket.socket:
    """Return a connection to the camera, the certificate of an ``rtsps`` camera verified or compared.

    Raises CameraUnreachable, CameraUntrusted or ConfigInvalid.
    """
    parts = urlsplit(camera.url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    with _reported(camera, host):
        connection = socket.create_connection((host, port), timeout=_PATIENCE_SECONDS)
        try:
            if parts.scheme != "rtsps":
                return connection
            channel = _handshake(connection, camera, (host, port), _authorities(camera, root))
            if camera.fingerprint:
                _compare(channel, camera)
        except BaseException:
            connection.close()
            raise
        return channel


@contextmanager
def _reported(camera: Camera, host: str) -> Iterator[None]:
    try:
        yield
    except socket.gaierror as error:
        raise CameraUnreachable(f"there is no host {host!r}", hint="Check the name in the URL.") from error
    except (OSError, ValueError) as error:
        raise CameraUnreachable(
            f"{camera.url} does not answer: {error}",
            hint="Check address, port, cable and that the camera is on.",
        ) from error


def _ask(channel: socket.socket, camera: Camera) -> None:
    channel.sendall(f"OPTIONS {camera.url} RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: videostore\r\n\r\n".encode())
    if not channel.recv(64).startswith(b"RTSP/"):
        raise CameraNotRtsp(
            f"{camera.url} is not an RTSP server",
            hint="Check the port: RTSP is usually 554, a web page 80 or 443.",
        )


def _authorities(camera: Camera, root: Path) -> str:
    """Return the path of the authorities' certificates; empty if a fingerprint stands for them."""
    if camera.fingerprint:
        return ""
    found = str(root / camera.ca_file) if camera.ca_file else ssl.get_default_verify_paths().cafile
    if not found or not Path(found).is_file():
        raise ConfigInvalid(
            f"camera {camera.name!r}: there is no file of certificate authorities {found or ''}".rstrip(),
            hint="Name the PEM file of the camera's authority with --ca-file.",
        )
    return found


def _handshake(
    connection: socket.socket, camera: Camera, address: tuple[str, int], authorities: str
) -> ssl.SSLSocket:
    try:
        context = ssl.create_default_context(cafile=authorities or None)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # private authorities leave extensions out
        if camera.fingerprint:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # _pinned is stricter
        return context.wrap_socket(connection, server_hostname=address[0])
    except ssl.SSLCertVerificationError as error:
        raise CameraUntrusted(
            f"the certificate of {camera.url} is not valid: {error.verify_message}",
            hint="Name its authority with --ca-file; or, if the camera's own page shows this fingerprint, "
            f"give --fingerprint {_fingerprint_at(address)}",
        ) from error
    except ssl.SSLError as error:
        raise CameraUntrusted(
            f"{camera.url} does not speak TLS as it should: {error.reason}",
            hint="Check the port, and that --ca-file is a PEM file; rtsp:// is the URL without TLS.",
        ) from error


def _fingerprint_at(address: tuple[str, int]) -> str:
    try:
        shown = ssl.get_server_certificate(address, timeout=_PATIENCE_SECONDS)
    except OSError:
        return "SHA256"
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).hexdigest()


def _compare(channel: ssl.SSLSocket, camera: Camera) -> None:
    found = hashlib.sha256(channel.getpeercert(binary_form=True) or b"").hexdigest()
    if found != camera.fingerprint:
        channel.close()
        raise CameraUntrusted(
            f"the certificate of {camera.url} has the fingerprint {found}, not {camera.fingerprint}",
            hint="If the camera was given a new certificate, add it again; if not, somebody is between.",
        )


def _pinned(channel: ssl.SSLSocket, camera: Camera, file: Path) -> dict[str, str]:
    """Have libav accept the certificate that was compared, and no other."""
    certificate = channel.getpeercert(binary_form=True) or b""
    file.write_text(ssl.DER_cert_to_PEM_cert(certificate), encoding="ascii")
    return {"tls_verify": "1", "ca_file": str(file), "verifyhost": _name_in(certificate, camera)}


def _name_in(certificate: bytes, camera: Camera) -> str:
    """Return a name that the certificate is for; libav insists on one, the pin says which camera it is."""
    parsed = x509.load_der_x509_certificate(certificate)
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [
            *names.get_values_for_type(x509.DNSName),
            *map(str, names.get_values_for_type(x509.IPAddress)),
        ]
    except x509.ExtensionNotFound:
        found = []
    found += [str(one.value) for one in parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not found:
        raise CameraUntrusted(
            f"the certificate of {camera.url} names nobody", hint="Give the camera a certificate with a name."
        )
    return found[0]
