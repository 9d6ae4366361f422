"""Sealed footage that waits for upload: on disk and synced before anything else happens.

::

    open/CAMERA/NAME     one group of the segment being recorded, already sealed
    ready/CAMERA/NAME    a whole segment
    gaps/NAME.json       a gap that the catalogue does not know yet
    cameras/CAMERA.json  how far the camera's record reaches

NAME is the last part of the object key, so a file says everything about itself. A group is a playable
segment: whatever a crash leaves in ``open`` is promoted to ``ready`` at the next start. Only sealed
bytes are ever written here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import RLock
from uuid import UUID

from videostore import telemetry
from videostore.domain.camera import CameraId
from videostore.domain.segment import Gap, GapReason, KeyId, Segment, Sha256Hex, Span, day_prefix
from videostore.durable import TEMPORARY, disk_errors, make_directory, remove_file, sync_directory, write_file

log = telemetry.logger("recorder")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the record of a camera reaches: the next sequence number, and until when every second is
    footage or a gap."""

    next_sequence: int = 0
    end: datetime | None = None


class Spool:
    """One site's spool; a Holding for retention, which may run in another process."""

    name = "spool"

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = RLock()

    # --- writing ---

    def keep_group(self, segment: Segment, sealed: bytes) -> None:
        """Keep one sealed group of the segment being recorded."""
        write_file(self._path("open", segment), sealed)

    def commit(self, segment: Segment, sealed: bytes, *, groups: Sequence[Segment]) -> None:
        """Keep a whole segment, then drop the groups that it is made of."""
        with self._lock:
            write_file(self._path("ready", segment), sealed)
            for group in groups:
                remove_file(self._path("open", group))
            self._reaches(segment.camera_id, segment.span.end, sequence=segment.sequence)

    def recover(self) -> int:
        """Promote the groups that a crash left behind. Returns how many. Call before recording begins."""
        promoted = 0
        with self._lock:
            for leftover in self._root.glob(f"**/.*{TEMPORARY}"):
                remove_file(leftover)
            for path, group in self._files("open"):
                if self._is_within_ready(group):
                    remove_file(path)
                    continue
                target = self._path("ready", group)
                make_directory(target.parent)
                with disk_errors(target):
                    path.replace(target)
                    sync_directory(target.parent)
                    sync_directory(path.parent)
                self._reaches(group.camera_id, group.span.end, sequence=group.sequence)
                promoted += 1
        return promoted

    def progress(self, camera_id: CameraId) -> Progress:
        """Return how far the record of a camera reaches; a damaged note counts as none."""
        try:
            fields = json.loads(self._progress_path(camera_id).read_bytes())
            return Progress(int(fields["next_sequence"]), datetime.fromisoformat(fields["end"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Progress()

    def add_gap(self, gap: Gap) -> None:
        """Keep a gap until the catalogue has it. The record of the camera then reaches to its end."""
        body = {
            "camera_id": str(gap.camera_id),
            "start": gap.span.start.isoformat(),
            "end": gap.span.end.isoformat(),
            "reason": gap.reason.value,
        }
        data = json.dumps(body).encode()
        write_file(self._root / "gaps" / f"{hashlib.sha256(data).hexdigest()[:32]}.json", data)
        with self._lock:
            self._reaches(gap.camera_id, gap.span.end)

    # --- uploading ---

    def pending(self) -> list[Segment]:
        """Return the whole segments that wait, oldest first."""
        with self._lock:
            return [segment for _, segment in self._files("ready")]

    def read(self, segment: Segment) -> bytes | None:
        """Return the sealed bytes, or None if retention took them."""
        path = self._path("ready", segment)
        with disk_errors(path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def drop(self, segment: Segment) -> None:
        """Forget a segment that store and catalogue have confirmed."""
        remove_file(self._path("ready", segment))

    def gaps(self) -> Iterator[tuple[Path, Gap]]:
        """Yield the gaps that wait, and the files they are in."""
        for path in sorted((self._root / "gaps").glob("*.json")):
            with suppress(OSError, ValueError, KeyError):
                fields = json.loads(path.read_bytes())
                span = Span(*(datetime.fromisoformat(fields[name]) for name in ("start", "end")))
                yield path, Gap(span, UUID(fields["camera_id"]), GapReason(fields["reason"]))

    def held(self, camera_id: CameraId) -> list[Segment]:
        """Return what of a camera is here: whole segments, and groups of the one being recorded."""
        return [
            one for place in ("ready", "open") for _, one in self._files(place) if one.camera_id == camera_id
        ]

    def size_bytes(self) -> int:
        """Return the sealed bytes in the spool, groups included."""
        return sum(segment.size_bytes for place in ("open", "ready") for _, segment in self._files(place))

    # --- Holding ---

    def key_ids(self) -> Sequence[KeyId]:
        return sorted({segment.key_id for place in ("open", "ready") for _, segment in self._files(place)})

    def remove(self, key_id: KeyId) -> int:
        due = [
            path for place in ("open", "ready") for path, one in self._files(place) if one.key_id == key_id
        ]
        return sum(remove_file(path) for path in due)

    # --- files ---

    def _path(self, place: str, segment: Segment) -> Path:
        return self._root / place / str(segment.camera_id) / segment.object_key.rsplit("/", 1)[1]

    def _files(self, place: str) -> list[tuple[Path, Segment]]:
        found: list[tuple[Path, Segment]] = []
        for path in (self._root / place).glob("*/*.age"):
            with suppress(OSError, ValueError):
                day = datetime.strptime(path.name[:8], "%Y%m%d").date()  # noqa: DTZ007 - the name is UTC
                key = f"{day_prefix(day)}{path.parent.name}/{path.name}"
                found.append((path, Segment.from_object_key(key, size_bytes=path.stat().st_size)))
        return sorted(found, key=lambda item: (item[1].span.start, item[1].object_key))

    def _is_within_ready(self, group: Segment) -> bool:
        return any(
            segment.camera_id == group.camera_id and segment.span.contains(group.span)
            for _, segment in self._files("ready")
        )

    def _reaches(self, camera_id: CameraId, end: datetime, *, sequence: int = -1) -> None:
        known = self.progress(camera_id)
        fields = {
            "next_sequence": max(known.next_sequence, sequence + 1),
            "end": (end if known.end is None else max(known.end, end)).isoformat(),
        }
        write_file(self._progress_path(camera_id), json.dumps(fields).encode())

    def _progress_path(self, camera_id: CameraId) -> Path:
        return self._root / "cameras" / f"{camera_id}.json"


def facts_of(sealed: bytes, *, camera_id: CameraId, span: Span, sequence: int, key_id: KeyId) -> Segment:
    """Return the facts of sealed bytes. ``key_id`` must be the key of the span's start."""
    digest = Sha256Hex(hashlib.sha256(sealed).hexdigest())
    segment = Segment(camera_id, span, sequence, key_id.period, len(sealed), digest)
    assert segment.key_id == key_id
    return segment
