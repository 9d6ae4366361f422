"""Sealed footage that waits for upload: on disk and synced before anything else happens.

::

    open/CAMERA/NAME     one small group of the segment being recorded, already sealed
    open/CAMERA/NAME.…   the segment being recorded (``growing``)
    ready/CAMERA/NAME    a whole segment
    lost/CAMERA/NAME     a segment given up for want of room, empty: its name is a gap
    …                    gaps/, runs/, cameras/: what is on record besides footage

NAME is the last part of the object key, so a file says everything about itself. A group is a playable
segment: whatever a crash leaves in ``open`` is promoted to ``ready`` at the next start. Only sealed
bytes are ever written here.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from videostore.domain.camera import CameraId
from videostore.domain.chain import Item
from videostore.domain.ledger import Json
from videostore.domain.segment import (
    SITE_KEEP,
    Gap,
    GapReason,
    KeyId,
    ObjectKey,
    Segment,
    Sha256Hex,
    Span,
)
from videostore.durable import disk_errors, remove_file, write_file
from videostore.recorder.growing import GROWS, GrowingFile, last_end
from videostore.recorder.places import PLACES, Places
from videostore.recorder.record import Progress, Record, Sign
from videostore.recorder.room import Room

_Print: TypeAlias = tuple[int, int, int]
_REMEMBERED = 1000
"""Segments whose files are known to be as they were written: enough for those on their way to the store."""


class Spool:
    """One site's spool; a Holding for retention, which may run in another process."""

    name = "spool"

    def __init__(
        self,
        root: Path,
        *,
        limit_bytes: int | None = None,
        sign: Sign = lambda _: "",
        mine: Callable[[CameraId], bool] | None = None,
        kept: Callable[[CameraId, datetime], timedelta] = lambda *_: SITE_KEEP,
    ) -> None:
        """Beyond ``limit_bytes``, or on a full disk, the oldest whole segments are given up for new ones.
        ``sign`` returns the recorder's signature under a run; who records nothing needs none. Where several
        processes share the spool, ``mine`` says whose cameras this one sees: nobody else touches them.
        ``kept`` says how long footage of a camera and a key's beginning is kept, if for less than all."""
        self._kept = kept
        self._places = Places(root, mine=mine)
        self._record = Record(root, sign=sign, sees=self._places.sees)
        self._room = Room(self._places, limit_bytes=limit_bytes)
        self._written: dict[ObjectKey, _Print] = {}  # of what this process put there last

    # --- writing ---

    def keep_group(self, segment: Segment, sealed: bytes) -> None:
        """Keep one sealed group of the segment being recorded. Raises DiskFull."""
        self._write("open", segment, sealed)

    def commit(
        self,
        segment: Segment,
        sealed: bytes,
        *,
        groups: Sequence[Segment],
        clock: timedelta | None = None,
    ) -> None:
        """Keep a whole segment, then drop the groups that it is made of. Raises DiskFull.

        ``clock`` is how far the camera's clock lay behind the host's at its beginning, None if unknown.
        """
        self._room.waiting()  # listed before there is what it would find
        self._write("ready", segment, sealed)
        self._places.drop([self._places.path("open", group) for group in groups])
        self._room.count(-sum(group.size_bytes for group in groups))
        self._note_whole(segment, clock)

    def grow(self, begun: Segment, *, recipient: str) -> GrowingFile:
        """Begin a segment that is sealed as it grows. Raises DiskError, KeyUnavailable."""
        directory = self._places.path("open", begun).parent
        return GrowingFile(directory, begun, recipient=recipient, room=self._room.write)

    def end(
        self,
        growing: GrowingFile,
        span: Span,
        *,
        groups: Sequence[Segment],
        clock: timedelta | None = None,
    ) -> Segment:
        """Keep a segment that has grown to ``span``, then drop what was to be kept of it after a crash."""
        segment = growing.finish(span)
        self._room.waiting()
        self._places.move(growing.path, segment)
        self._places.drop([growing.ends, *(self._places.path("open", group) for group in groups)])
        self._room.count(-growing.noted_bytes - sum(group.size_bytes for group in groups))
        self._note_whole(segment, clock)
        return segment

    def _note_whole(self, segment: Segment, clock: timedelta | None) -> None:
        """Chain a segment before anybody takes it; it waits even if the disk has no room for that."""
        try:
            self._room.make(lambda: self._record.reaches(segment.camera_id, segment.span.end, segment, clock))
        finally:
            with self._room.lock:
                self._remember(segment)
            self._room.add(segment)

    def promote(self, camera_id: CameraId) -> list[Segment]:
        """Make segments of what was kept of one that can grow no more. Raises DiskError."""

        def work() -> list[Segment]:
            whole = [one for _, one in self._places.files("ready", camera=str(camera_id))]
            return self._finish(camera_id, whole)

        with self._room.lock:
            self._room.list_anew()
            try:
                return self._room.make(work)
            finally:
                self._room.list_anew()

    def recover(self) -> int:
        """Promote the groups that a crash left behind. Returns how many. Call before recording begins."""
        return self._room.make(self._recover)

    def _recover(self) -> int:
        promoted = 0
        with self._room.lock:
            self._places.remove_half_written()
            whole: dict[CameraId, list[Segment]] = defaultdict(list)
            for _, segment in self._places.files("ready"):
                whole[segment.camera_id].append(segment)
            for camera_id in {*whole, *self._places.open_cameras()}:
                found = self._finish(camera_id, whole[camera_id])
                promoted += len(found)
                whole[camera_id] += found
            self._room.know([segment for segments in whole.values() for segment in segments])
        return promoted

    def _finish(self, camera_id: CameraId, whole: Sequence[Segment]) -> list[Segment]:
        """Promote what is in ``open``, and chain what is not. May be asked again after an error."""
        found = self._places.promote(camera_id, whole)
        chained = self.progress(camera_id).chained
        for segment in sorted([*whole, *found], key=Item.of):
            if chained is None or Item.of(segment) > chained:
                self._record.reaches(camera_id, segment.span.end, segment)
        return found

    # --- the record ---

    def progress(self, camera_id: CameraId) -> Progress:
        """Return how far the record of a camera reaches; a damaged note counts as none."""
        return self._record.progress(camera_id)

    def begin(self, camera_id: CameraId, moment: datetime) -> None:
        """Note that the record of a camera begins at ``moment``."""
        with self._room.lock:
            self._record.reaches(camera_id, moment)

    def add_gap(self, gap: Gap) -> None:
        """Keep a gap until the catalogue has it. The record of the camera then reaches to its end."""
        self._record.add_gap(gap)
        with self._room.lock:
            self._record.reaches(gap.camera_id, gap.span.end)

    def gaps(self) -> Iterator[tuple[Path, Gap]]:
        """Yield the gaps that wait, and the files they are in."""
        for path, lost in self._places.files("lost"):
            yield path, Gap(lost.span, lost.camera_id, GapReason.SPOOL_OVERRUN)
        yield from self._record.gaps()

    def runs(self) -> Iterator[tuple[Path, Mapping[str, Json]]]:
        """Yield the runs that the ledger does not have, signed, and the files they are in."""
        return self._record.runs()

    def open_runs(self) -> Iterator[Mapping[str, Json]]:
        """Yield the signed run of each camera that still goes on."""
        return self._record.open_runs()

    # --- uploading ---

    def pending(self) -> list[Segment]:
        """Return the whole segments that wait, oldest first."""
        return self._room.waiting()

    def read(self, segment: Segment) -> bytes | None:
        """Return the sealed bytes, or None if retention took them."""
        path = self._places.path("ready", segment)
        with disk_errors(path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def as_sealed(self, segment: Segment) -> Path | None:
        """Return the file of a whole segment if it is still as this process wrote it and synced it; None if
        that is not known: then read it and look at its hash."""
        path = self._places.path("ready", segment)
        with self._room.lock:
            written = self._written.get(segment.object_key)
        with suppress(OSError):
            if written is not None and _print(path) == written:
                return path
        return None

    def _remember(self, segment: Segment) -> None:
        while len(self._written) >= _REMEMBERED:
            del self._written[next(iter(self._written))]
        with suppress(OSError):
            self._written[segment.object_key] = _print(self._places.path("ready", segment))

    def drop(self, segment: Segment) -> None:
        """Forget a segment that store and catalogue have confirmed, or that retention took."""
        remove_file(self._places.path("ready", segment))
        self._room.discard(segment)
        with self._room.lock:
            self._written.pop(segment.object_key, None)

    def given_up(self) -> list[tuple[Path, Segment]]:
        """Return the segments that were lost for want of room, and the files that say so: gaps too."""
        return self._places.files("lost")

    def held(self, camera_id: CameraId) -> list[Segment]:
        """Return what of a camera is here: whole segments, and groups of the one being recorded. Read in the
        order in which they move: none is missed that becomes whole meanwhile."""
        camera = str(camera_id)
        growing = [last_end(path) for path, _ in self._places.files("open", GROWS, camera=camera)]
        found = [*self._places.files("open", camera=camera), *self._places.files("ready", camera=camera)]
        return [*(one for one in growing if one is not None), *(one for _, one in found)]

    def whole(self, camera_id: CameraId, span: Span) -> list[Segment]:
        """Return the whole segments of a camera that are here and overlap ``span``, as this process knows."""
        return self._room.overlapping(camera_id, span)

    def size_bytes(self) -> int:
        """Return the sealed bytes in the spool, groups included, as this process knows it."""
        return self._room.size_bytes()

    # --- Holding ---

    def key_ids(self) -> Sequence[KeyId]:
        return sorted({self._goes_with(segment) for _, segment in self._places.all(*PLACES)})

    def remove(self, key_id: KeyId) -> int:
        due = [path for path, one in self._places.all(*PLACES) if self._goes_with(one) == key_id]
        removed = sum(remove_file(path) for path in due)
        self._room.list_anew()
        return removed

    def _goes_with(self, segment: Segment) -> KeyId:
        """Return the key that goes when this segment must: its own, or the one its camera would get now."""
        key_id = segment.key_id
        keep = self._kept(segment.camera_id, key_id.start)
        return replace(key_id, keep=min(keep, key_id.keep or keep)) if keep else key_id

    def _write(self, place: str, segment: Segment, sealed: bytes) -> None:
        path = self._places.path(place, segment)
        self._room.write(len(sealed), lambda: write_file(path, sealed))


def _print(path: Path) -> _Print:
    """Return what changes when a file is written to, or another takes its place."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def facts_of(sealed: bytes, *, camera_id: CameraId, span: Span, sequence: int, key_id: KeyId) -> Segment:
    """Return the facts of sealed bytes. ``key_id`` must be the key of the span's start."""
    digest = Sha256Hex(hashlib.sha256(sealed).hexdigest())
    segment = Segment(camera_id, span, sequence, key_id.period, len(sealed), digest, key_id.keep)
    assert segment.key_id == key_id
    return segment
