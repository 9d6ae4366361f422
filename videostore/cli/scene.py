"""The site of the demonstration: synthetic cameras behind a real RTSP server, footage that lives seconds."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

from videostore import app as composition
from videostore.config.site import Site
from videostore.domain.camera import Camera
from videostore.domain.ledger import Event
from videostore.synthetic.server import SyntheticCamera, SyntheticServer
from videostore.synthetic.stream import stream

_LOGIN = "camera:demonstration-only"

_SETTINGS = """\
version: 1
site: demonstration
recorder: {segment: 2s, stall: 5s}
keyring: {ahead: 60s}
retention: {sweep: 1s}
gate: {listen: "127.0.0.1:0"}
metrics: {recorder: "127.0.0.1:0", retention: "127.0.0.1:0", gate: "127.0.0.1:0"}
logging: {form: json}
"""
_RETENTION = """\
version: 1
video: {{keep: {keep}s, lead: {lead}s, key_period: {period}s}}
entry_exit: {{keep: {keep}s, lead: {lead}s, key_period: {period}s}}
"""
_ACCESS = """\
version: 1
approvers: {{delegate: "{approver}"}}
"""


def make_site(
    root: Path, opened: ExitStack, *, cameras: int, policy: Mapping[str, int], approver: str
) -> Site:
    """Make a site in a new directory, with cameras that are served until ``opened`` closes.

    ``policy`` has ``keep``, ``lead`` and ``period`` in seconds; ``approver`` is the delegate's public key.
    """
    picture = stream()
    sources = [SyntheticCamera(f"camera{number}", picture) for number in range(1, cameras + 1)]
    sources[0].user, sources[0].password = _LOGIN.split(":")
    server = opened.enter_context(SyntheticServer(sources))
    overrides = {
        "videostore.yaml": _SETTINGS,
        "policies/retention.yaml": _RETENTION.format(**policy),
        "policies/access.yaml": _ACCESS.format(approver=approver),
    }
    composition.create(root, name="demonstration", overrides=overrides)
    site = Site.load(root)
    secret = root / "secrets" / "camera1"
    secret.write_text(_LOGIN)
    secret.chmod(0o600)
    for source in sources:
        reference = "file:secrets/camera1" if source.user else ""
        camera = site.cameras.add(Camera(uuid4(), source.path, server.url(source.path), reference))
        composition.record(site, Event.CAMERA_ADDED, camera_id=str(camera.id))
    return site
