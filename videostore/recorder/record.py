"""What a recorder has on record of its cameras besides footage, until catalogue and ledger have it.

::

    gaps/NAME.json       a gap that the catalogue does not know yet
    runs/NAME.json       a signed run of the chain (domain.chain) that the ledger does not have yet
    cameras/CAMERA.json  how far the camera's record and its chain reach
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

from videostore.domain.camera import CameraId
from videostore.domain.chain import Item, Run, extended
from videostore.domain.ledger import Json
from videostore.domain.segment import Gap, GapReason, Segment, Span
from videostore.durable import write_file

Sign: TypeAlias = Callable[[Mapping[str, Json]], str]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the record of a camera reaches: the next sequence number, until when every second is footage or
    a gap, the run of the chain that goes on, and its last item."""

    next_sequence: int = 0
    end: datetime | None = None
    run: Run | None = None
    chained: Item | None = None


class Record:
    """The notes of a spool at ``root``. ``sign`` returns the recorder's signature under a run, ``sees`` says
    whose notes are to be seen."""

    def __init__(self, root: Path, *, sign: Sign, sees: Callable[[str], bool]) -> None:
        self._root = root
        self._sign = sign
        self._sees = sees

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

    def reaches(
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

    def add_gap(self, gap: Gap) -> None:
        """Keep a gap."""
        body = {
            "camera_id": str(gap.camera_id),
            "start": gap.span.start.isoformat(),
            "end": gap.span.end.isoformat(),
            "reason": gap.reason.value,
        }
        data = json.dumps(body).encode()
        write_file(self._root / "gaps" / f"{hashlib.sha256(data).hexdigest()[:32]}.json", data)

    def gaps(self) -> Iterator[tuple[Path, Gap]]:
        """Yield the gaps that wait, and the files they are in."""
        for path in sorted((self._root / "gaps").glob("*.json")):
            with suppress(OSError, ValueError, KeyError):
                fields = json.loads(path.read_bytes())
                span = Span(*(datetime.fromisoformat(fields[name]) for name in ("start", "end")))
                if self._sees(fields["camera_id"]):
                    yield path, Gap(span, UUID(fields["camera_id"]), GapReason(fields["reason"]))

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


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0  # another process took it
