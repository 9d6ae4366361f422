"""Cameras: stream sources whose identity never changes.

A camera is its UUID. The name is for people and may change; footage stays with the UUID,
so a renamed, disabled or removed camera is swept like any other (invariant 3), and no
new camera ever inherits an old one's footage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

from videostore.domain.errors import CameraInvalid, CameraNotRtsp, CredentialsInvalid

CameraId = UUID


class Transport(StrEnum):
    """How RTP travels: inside the RTSP connection, or in datagrams beside it."""

    TCP = "tcp"
    UDP = "udp"


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
LONGEST_PLACE = 100
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera of the site.

    ``url`` never holds a password. ``credentials`` says where user and password are found:
    ``env:NAME`` or ``file:PATH``, each holding ``user:password``; empty for an open stream.

    The certificate of an ``rtsps`` camera is verified: against the authorities of ``ca_file`` (PEM; empty for
    those of the host), or by its SHA-256 ``fingerprint`` alone (64 hex digits), which may be self-signed.

    ``group`` gathers cameras, such as those of ``building-b``; ``place`` tells a person where it hangs.

    Only with ``sound`` is what the camera hears asked for and recorded.
    """

    id: CameraId
    name: str
    url: str
    credentials: str = ""
    transport: Transport = Transport.TCP
    ca_file: str = ""
    fingerprint: str = ""
    group: str = ""
    place: str = ""
    sound: bool = False
    enabled: bool = True
    removed: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise CameraInvalid(
                f"{self.name!r} is not a camera name",
                hint="Use 1 to 63 lower-case letters, digits, '.', '_' or '-'; begin with a letter or digit.",
            )
        if self.group and not _NAME.fullmatch(self.group):
            raise CameraInvalid(
                f"{self.group!r} is not the name of a group",
                hint="It is made as a camera's name is, such as building-b.",
            )
        if len(self.place) > LONGEST_PLACE or not self.place.isprintable():
            raise CameraInvalid(
                f"camera {self.name!r}: a place is a line of at most {LONGEST_PLACE} characters",
                hint="Say where the camera hangs, such as 'building B, 2nd floor, stairs'.",
            )
        check_stream_url(self.url)
        if self.credentials and not self.credentials.startswith(("env:", "file:")):
            raise CredentialsInvalid(
                f"camera {self.name!r}: credentials must be env:NAME or file:PATH",
                hint="Give --credentials-env or --credentials-file.",
            )
        if (self.ca_file or self.fingerprint) and not self.url.startswith("rtsps:"):
            raise CameraInvalid(
                f"camera {self.name!r}: a certificate is verified on rtsps:// only",
                hint="Use the camera's rtsps:// URL, or leave --ca-file and --fingerprint out.",
            )
        if self.fingerprint and not _FINGERPRINT.fullmatch(self.fingerprint):
            raise CameraInvalid(
                f"{self.fingerprint!r} is not a SHA-256 fingerprint",
                hint="Give 64 hex digits, as `openssl x509 -noout -fingerprint -sha256` prints them.",
            )
        if self.transport is Transport.UDP and self.url.startswith("rtsps:"):
            raise CameraInvalid(
                f"camera {self.name!r}: datagrams beside rtsps:// would not be encrypted",
                hint="Use TCP with rtsps://.",
            )


def is_dropped(camera: Camera) -> bool:
    """Say whether the footage of a camera comes as files in a drop folder."""
    return camera.url.startswith("folder:")


def check_stream_url(url: str) -> None:
    """Raise unless ``url`` is an RTSP URL without user or password, or ``folder://NAME/CAMERA``."""
    parts = urlsplit(url)
    if parts.scheme == "folder" and parts.netloc and parts.path.count("/") == 1 and parts.path != "/":
        return
    if parts.scheme not in {"rtsp", "rtsps"} or not parts.hostname or not _has_port(parts):
        raise CameraNotRtsp(
            f"{redact(url)!r} is not an RTSP URL",
            hint="A camera URL looks like rtsp://10.0.0.7:554/stream1; in a drop folder folder://NVR/CAMERA.",
        )
    if parts.username is not None or parts.password is not None:
        raise CredentialsInvalid(
            f"the URL {redact(url)!r} carries a user or password",
            hint="Put user:password in a file (mode 0600) or an environment variable, "
            "and give --credentials-file or --credentials-env.",
        )


def _has_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def redact(text: str) -> str:
    """Return ``text`` with the user part of every URL in it replaced, for messages and logs."""
    return re.sub(r"(?<=://)[^/@\s]*@", "***@", text)
