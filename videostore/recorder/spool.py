"""Sealed footage that waits for upload: on disk and synced before anything else happens.

::

    open/CAMERA/NAME     one group of the segment being recorded, already sealed
    ready/CAMERA/NAME    a whole segment
    lost/CAMERA/NAME     a segment given up for want of room, empty: its name is a gap
    gaps/NAME.json       a gap that the catalogue does not know yet
    runs/NAME.json       a signed run of the chain (domain.chain) that the ledger does not have yet
    cameras/CAMERA.json  how far the camera's record and its chain reach

NAME is the last part of the object key, so a file says everything about itself. A group is a playable
segment: whatever a crash leaves in ``open`` is promoted to ``ready`` at the next start. Only sealed
bytes are ever written here.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import TypeAlias
from uuid import UUID

from videostore import telemetry
from videostore.domain.camera import CameraId
from videostore.domain.chain import Item, Run, extended
from videostore.domain.errors import DiskFull
from videostore.domain.ledger import Json
from videostore.domain.segment import (
    LONGEST_SEGMENT,
    SITE_KEEP,
    Gap,
    GapReason,
    KeyId,
    ObjectKey,
    Segment,
    Sha256Hex,
    Span,
)
from videostore.durable import TEMPORARY, disk_errors, make_directory, remove_file, sync_directory, write_file

log = telemetry.logger("recorder")

_Entry: TypeAlias = tuple[datetime, ObjectKey, Segment]
_Print: TypeAlias = tuple[int, int, int]
Sign: TypeAlias = Callable[[Mapping[str, Json]], str]
_PLACES = ("open", "ready", "lost")
_REMEMBERED = 1000
"""Segments whose files are known to be as they were written: enough for those on their way to the store."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the record of a camera reaches: the next sequence number, until when every second is footage or
    a gap, the run of the chain that goes on, and its last item."""

    next_sequence: int = 0
    end: datetime | None = None
    run: Run | None = None
    chained: Item | None = None


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
        self._root = root
        self._mine = mine
        self._kept = kept
        self._limit = limit_bytes
        self._sign = sign
        self._size: int | None = None  # as this process knows it; None until it was counted
        self._whole: list[_Entry] | None = None  # what is in ready, oldest first; None until it was listed
        self._written: dict[ObjectKey, _Print] = {}  # of what this process put there last
        self._lock = RLock()

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
        with self._lock:
            self._waiting()  # listed before there is what it would find
        self._write("ready", segment, sealed)
        with self._lock:
            self._remember(segment)
            waiting, entry = self._waiting(), _entry(segment)
            place = bisect_left(waiting, entry)
            if waiting[place : place + 1] != [entry]:
                waiting.insert(place, entry)
        self._drop_groups(groups)
        self._reaches(segment.camera_id, segment.span.end, segment, clock)

    def recover(self) -> int:
        """Promote the groups that a crash left behind. Returns how many. Call before recording begins."""
        promoted = 0
        with self._lock:
            for leftover in self._root.glob(f"**/.*{TEMPORARY}"):
                if self._mine is None or not _is_being_written(leftover):
                    remove_file(leftover)
            whole: dict[CameraId, list[Segment]] = defaultdict(list)
            for _, segment in self._files("ready"):
                whole[segment.camera_id].append(segment)
            for path, group in self._files("open"):
                if any(segment.span.contains(group.span) for segment in whole[group.camera_id]):
                    remove_file(path)
                    continue
                target = self._path("ready", group)
                make_directory(target.parent)
                with disk_errors(target):
                    path.replace(target)
                    sync_directory(target.parent)
                    sync_directory(path.parent)
                promoted += 1
                whole[group.camera_id].append(group)
            for camera_id, segments in whole.items():
                chained = self.progress(camera_id).chained
                for segment in sorted(segments, key=Item.of):
                    if chained is None or Item.of(segment) > chained:
                        self._reaches(camera_id, segment.span.end, segment)
            found = [segment for segments in whole.values() for segment in segments]
            self._whole, self._size = sorted(map(_entry, found)), sum(one.size_bytes for one in found)
        return promoted

    def progress(self, camera_id: CameraId) -> Progress:
        """Return how far the record of a camera reaches; a damaged note counts as none."""
        try:
            fields = json.loads(self._progress_path(camera_id).read_bytes())
            run, chained = fields.get("run"), fields.get("chained")
            return Progress(
                int(fields["next_sequence"]),
                datetime.fromisoformat(fields["end"]),
                Run.from_json(run) if run else None,
                Item(chained[0], datetime.fromisoformat(chained[1]), chained[2]) if chained else None,
            )
        except (OSError, ValueError, KeyError, TypeError):
            return Progress()

    def begin(self, camera_id: CameraId, moment: datetime) -> None:
        """Note that the record of a camera begins at ``moment``."""
        with self._lock:
            self._reaches(camera_id, moment)

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
            return [segment for _, _, segment in self._waiting()]

    def read(self, segment: Segment) -> bytes | None:
        """Return the sealed bytes, or None if retention took them."""
        path = self._path("ready", segment)
        with disk_errors(path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def as_sealed(self, segment: Segment) -> Path | None:
        """Return the file of a whole segment if it is still as this process wrote it and synced it; None if
        that is not known: then read it and look at its hash."""
        path = self._path("ready", segment)
        with self._lock:
            written = self._written.get(segment.object_key)
        with suppress(OSError):
            if written is not None and _print(path) == written:
                return path
        return None

    def _remember(self, segment: Segment) -> None:
        while len(self._written) >= _REMEMBERED:
            del self._written[next(iter(self._written))]
        with suppress(OSError):
            self._written[segment.object_key] = _print(self._path("ready", segment))

    def drop(self, segment: Segment) -> None:
        """Forget a segment that store and catalogue have confirmed, or that retention took."""
        self._remove(self._path("ready", segment), segment.size_bytes)
        with self._lock:
            self._written.pop(segment.object_key, None)
            waiting, entry = self._waiting(), _entry(segment)
            place = bisect_left(waiting, entry)
            if waiting[place : place + 1] == [entry]:
                del waiting[place]

    def gaps(self) -> Iterator[tuple[Path, Gap]]:
        """Yield the gaps that wait, and the files they are in."""
        for path, lost in self._files("lost"):
            yield path, Gap(lost.span, lost.camera_id, GapReason.SPOOL_OVERRUN)
        for path in sorted((self._root / "gaps").glob("*.json")):
            with suppress(OSError, ValueError, KeyError):
                fields = json.loads(path.read_bytes())
                span = Span(*(datetime.fromisoformat(fields[name]) for name in ("start", "end")))
                if self._sees(fields["camera_id"]):
                    yield path, Gap(span, UUID(fields["camera_id"]), GapReason(fields["reason"]))

    def given_up(self) -> list[tuple[Path, Segment]]:
        """Return the segments that were lost for want of room, and the files that say so: gaps too."""
        return self._files("lost")

    def runs(self) -> Iterator[tuple[Path, Mapping[str, Json]]]:
        """Yield the runs that the ledger does not have, signed, and the files they are in."""
        for path in sorted((self._root / "runs").glob("*.json"), key=_changed):
            with suppress(OSError, ValueError, KeyError):
                run = json.loads(path.read_bytes())
                if self._sees(run["camera_id"]):
                    yield path, run

    def open_runs(self) -> Iterator[Mapping[str, Json]]:
        """Yield the signed run of each camera that still goes on."""
        for path in sorted((self._root / "cameras").glob("*.json")):
            with suppress(OSError, ValueError, KeyError):
                fields = json.loads(path.read_bytes())
                if fields["run"] is not None:
                    yield {**fields["run"], "signature": fields["signature"]}

    def held(self, camera_id: CameraId) -> list[Segment]:
        """Return what of a camera is here: whole segments, and groups of the one being recorded."""
        return [
            one for place in ("ready", "open") for _, one in self._files(place) if one.camera_id == camera_id
        ]

    def whole(self, camera_id: CameraId, span: Span) -> list[Segment]:
        """Return the whole segments of a camera that are here and overlap ``span``, as this process knows."""
        with self._lock:
            waiting = self._waiting()
            first = bisect_left(waiting, span.start - LONGEST_SEGMENT, key=_start)
            last = bisect_left(waiting, span.end, key=_start)
            found = (segment for _, _, segment in waiting[first:last] if segment.camera_id == camera_id)
            return [segment for segment in found if segment.span.end > span.start]

    def size_bytes(self) -> int:
        """Return the sealed bytes in the spool, groups included, as this process knows it."""
        with self._lock:
            if self._size is None:
                self._size = sum(
                    one.size_bytes for place in ("open", "ready") for _, one in self._files(place)
                )
            return self._size

    # --- Holding ---

    def key_ids(self) -> Sequence[KeyId]:
        return sorted({self._goes_with(segment) for place in _PLACES for _, segment in self._files(place)})

    def remove(self, key_id: KeyId) -> int:
        due = [
            path for place in _PLACES for path, one in self._files(place) if self._goes_with(one) == key_id
        ]
        removed = sum(remove_file(path) for path in due)
        with self._lock:
            self._size = self._whole = None  # to be listed anew
        return removed

    def _goes_with(self, segment: Segment) -> KeyId:
        """Return the key that goes when this segment must: its own, or the one its camera would get now."""
        key_id = segment.key_id
        keep = self._kept(segment.camera_id, key_id.start)
        return replace(key_id, keep=min(keep, key_id.keep or keep)) if keep else key_id

    # --- room ---

    def _write(self, place: str, segment: Segment, sealed: bytes) -> None:
        """Other cameras do not wait while the disk syncs: only counting is done one at a time."""
        self._take_room(len(sealed))
        try:
            while True:
                try:
                    write_file(self._path(place, segment), sealed)
                except DiskFull:
                    with self._lock:
                        freed = self._give_up_oldest()
                        if not freed:
                            raise
                        self._count(-freed)
                else:
                    return
        except BaseException:
            self._count(-len(sealed))
            raise

    def _take_room(self, wanted: int) -> None:
        with self._lock:
            size = self.size_bytes()
            while self._limit is not None and size + wanted > self._limit:
                freed = self._give_up_oldest()
                if not freed:
                    raise DiskFull(
                        f"the spool {self._root} is full: {size} of {self._limit} bytes",
                        hint="Raise `recorder.spool_limit`, and see why nothing is uploaded.",
                    )
                size -= freed
            self._size = size + wanted

    def _count(self, size_bytes: int) -> None:
        with self._lock:
            if self._size is not None:
                self._size += size_bytes

    def _drop_groups(self, groups: Sequence[Segment]) -> None:
        paths = [self._path("open", group) for group in groups]
        for path in paths:
            with disk_errors(path):
                path.unlink(missing_ok=True)
        for directory in {path.parent for path in paths}:
            sync_directory(directory)
        self._count(-sum(group.size_bytes for group in groups))

    def _give_up_oldest(self) -> int:
        """Lose the oldest whole segment for a newer one, loudly. Returns the bytes that came free.

        A rename needs no room on a full disk, and the name says which span is lost.
        """
        if waiting := self._waiting():
            _, _, segment = waiting.pop(0)
            path, lost = self._path("ready", segment), self._path("lost", segment)
            make_directory(lost.parent)
            with disk_errors(lost):
                try:
                    path.replace(lost)
                except FileNotFoundError:
                    return segment.size_bytes  # retention took it
                if lost.stat().st_nlink > 1:  # the store keeps this very file: to truncate it would lose it
                    remove_file(lost)
                    return segment.size_bytes
                os.truncate(lost, 0)
                sync_directory(lost.parent)
                sync_directory(path.parent)
            telemetry.SPOOL_GIVEN_UP.inc()
            log.error(
                "footage.lost",
                camera_id=str(segment.camera_id),
                start=segment.span.start.isoformat(),
                end=segment.span.end.isoformat(),
                hint="The spool is full: see why nothing is uploaded.",
            )
            return segment.size_bytes
        return 0

    def _remove(self, path: Path, size_bytes: int) -> None:
        remove_file(path)
        self._count(-size_bytes)

    # --- files ---

    def _sees(self, camera_id: str) -> bool:
        return self._mine is None or self._mine(UUID(camera_id))

    def _path(self, place: str, segment: Segment) -> Path:
        return self._root / place / str(segment.camera_id) / segment.name

    def _waiting(self) -> list[_Entry]:
        """Return the whole segments, oldest first: listed once, then followed. A day's backlog is too much to
        list for each segment."""
        if self._whole is None:
            self._whole = [_entry(segment) for _, segment in self._files("ready")]
        return self._whole

    def _files(self, place: str) -> list[tuple[Path, Segment]]:
        found: list[tuple[Path, Segment]] = []
        for path in (self._root / place).glob("*/*.age"):
            with suppress(OSError, ValueError):
                if not self._sees(path.parent.name):
                    continue
                size_bytes = path.stat().st_size
                found.append((path, Segment.from_name(path.parent.name, path.name, size_bytes=size_bytes)))
        return sorted(found, key=lambda item: (item[1].span.start, item[1].object_key))

    def _reaches(
        self,
        camera_id: CameraId,
        end: datetime,
        segment: Segment | None = None,
        clock: timedelta | None = None,
    ) -> None:
        """Note how far the record of a camera reaches; chain ``segment``, and keep the run that it ends."""
        known = self.progress(camera_id)
        sequence, run, chained = known.next_sequence, known.run, known.chained
        if segment is not None:
            sequence = max(sequence, segment.sequence + 1)
            run, chained = extended(known.run, segment, clock), Item.of(segment)
            if known.run is not None and known.run.key_id != run.key_id:
                self._close(known.run)
        fields = {
            "next_sequence": sequence,
            "end": (end if known.end is None else max(known.end, end)).isoformat(),
            "run": run and run.to_json(),
            "signature": self._sign(run.to_json()) if run else "",
            "chained": chained and [chained.sequence, chained.start.isoformat(), chained.digest],
        }
        write_file(self._progress_path(camera_id), json.dumps(fields).encode())

    def _close(self, run: Run) -> None:
        data = json.dumps({**run.to_json(), "signature": self._sign(run.to_json())}).encode()
        write_file(self._root / "runs" / f"{run.after[:32]}.json", data)

    def _progress_path(self, camera_id: CameraId) -> Path:
        return self._root / "cameras" / f"{camera_id}.json"


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0  # another process took it


def _is_being_written(temporary: Path) -> bool:
    """Say whether the process that ``durable.write_file`` names in a temporary file still lives."""
    try:
        os.kill(int(temporary.name.removesuffix(TEMPORARY).rpartition(".")[2]), 0)
    except (ValueError, OSError):
        return False
    return True


def _print(path: Path) -> _Print:
    """Return what changes when a file is written to, or another takes its place."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _entry(segment: Segment) -> _Entry:
    return segment.span.start, segment.object_key, segment


def _start(entry: _Entry) -> datetime:
    return entry[0]


def facts_of(sealed: bytes, *, camera_id: CameraId, span: Span, sequence: int, key_id: KeyId) -> Segment:
    """Return the facts of sealed bytes. ``key_id`` must be the key of the span's start."""
    digest = Sha256Hex(hashlib.sha256(sealed).hexdigest())
    segment = Segment(camera_id, span, sequence, key_id.period, len(sealed), digest, key_id.keep)
    assert segment.key_id == key_id
    return segment
