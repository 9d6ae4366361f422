"""Spool to store to catalogue: in this order, and out of the spool only when both have confirmed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from threading import Event as Stop

from videostore import telemetry
from videostore.domain.chain import Item
from videostore.domain.errors import VideostoreError
from videostore.domain.ledger import Event, Json
from videostore.domain.segment import Segment
from videostore.durable import remove_file
from videostore.ports import Catalogue, Ledger, SegmentStore
from videostore.recorder.spool import Spool

log = telemetry.logger("recorder")

_BEHIND = 200
"""More segments than this waiting means that the store was down: the newest are wanted first."""
_ACTOR = "recorder"
_IDLE_SECONDS = 0.2
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds


class Uploader:
    """Empties a spool for as long as it is told to. A store that is down costs time, never footage."""

    def __init__(
        self,
        spool: Spool,
        store: SegmentStore,
        catalogue: Catalogue,
        ledger: Ledger,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._spool = spool
        self._store = store
        self._catalogue = catalogue
        self._ledger = ledger
        self._now = now

    def run(self, stop: Stop) -> None:
        """Upload until ``stop`` is set."""
        pause = _FIRST_PAUSE
        while not stop.is_set():
            try:
                moved = self.upload_all(stop)
                pause = _FIRST_PAUSE
                stop.wait(0 if moved else _IDLE_SECONDS)
            except VideostoreError as error:
                log.error("upload.failed", error=str(error), hint=error.hint, next_try_seconds=pause)
                stop.wait(pause)
                pause = min(_LONGEST_PAUSE, 2 * pause)
            except Exception as error:  # noqa: BLE001 - uploading outlives whatever one pass meets
                log.error("upload.failed", error=f"{type(error).__name__}: {error}")
                stop.wait(_LONGEST_PAUSE)

    def upload_all(self, stop: Stop | None = None) -> int:
        """Upload what waits now. Returns how many segments; raises at the first that cannot be."""
        moved = 0
        given_up = dict(self._spool.given_up())
        for path, gap in list(self._spool.gaps()):
            self._catalogue.add_gap(gap)
            if path not in given_up:
                remove_file(path)
        pending = self._spool.pending()
        self._measure(pending)
        if len(pending) > _BEHIND:
            pending = pending[: -_BEHIND - 1 : -1]  # far behind: what is newest first, then look again
        for segment in pending:
            if stop is not None and stop.is_set():
                break
            moved += self._upload(segment)
        if moved:
            self._measure(self._spool.pending())
        self._write_down(given_up)
        return moved

    def _write_down(self, given_up: Mapping[Path, Segment]) -> None:
        """Put into the ledger what the chain is to be verified by; twice is no harm."""
        for path, segment in given_up.items():
            item = Item.of(segment)
            body: dict[str, Json] = {
                "camera_id": str(segment.camera_id),
                "key_id": str(segment.key_id),
                "sequence": item.sequence,
                "start": item.start.isoformat(),
                "digest": item.digest,
            }
            self._ledger.append(Event.SEGMENT_GIVEN_UP, actor=_ACTOR, body=body)
            remove_file(path)
        for path, run in list(self._spool.runs()):
            self._ledger.append(Event.SEGMENTS_CHAINED, actor=_ACTOR, body=run)
            remove_file(path)

    def _upload(self, segment: Segment) -> bool:
        sealed = self._spool.read(segment)
        if sealed is None:
            self._spool.drop(segment)
            return False
        self._store.put(segment.object_key, sealed, sha256=segment.sha256)
        self._catalogue.add(segment)
        self._spool.drop(segment)
        telemetry.UPLOADED_SEGMENTS.inc()
        telemetry.UPLOADED_BYTES.inc(len(sealed))
        telemetry.UPLOAD_SECONDS.observe(max(0.0, (self._now() - segment.span.end).total_seconds()))
        return True

    def _measure(self, pending: list[Segment]) -> None:
        telemetry.SPOOL_SEGMENTS.set(len(pending))
        telemetry.SPOOL_BYTES.set(self._spool.size_bytes())
        telemetry.SPOOL_OLDEST.set(pending[0].span.start.timestamp() if pending else 0)
