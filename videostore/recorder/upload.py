"""Spool to store to catalogue: in this order, and out of the spool only when both have confirmed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from threading import Event as Stop
from threading import Lock

from videostore import telemetry
from videostore.domain.chain import Item
from videostore.domain.errors import IntegrityError, VideostoreError
from videostore.domain.ledger import Event, Json
from videostore.domain.segment import ObjectKey, Segment
from videostore.durable import remove_file
from videostore.ports import Catalogue, Ledger, SegmentStore
from videostore.recorder.spool import Spool

log = telemetry.logger("recorder")

_BEHIND = 200
"""More segments than this waiting means that the store was down: the newest are wanted first."""
_ACTOR = "recorder"
_IDLE_SECONDS = 0.2
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds


class Bandwidth:
    """Shares out what uploads may take of the network. Threads may ask at the same time."""

    def __init__(self, bytes_per_second: int, *, elapsed: Callable[[], float] = time.monotonic) -> None:
        """0 is no limit."""
        self._rate = bytes_per_second
        self._elapsed = elapsed
        self._free_at = 0.0
        self._lock = Lock()

    def delay(self, size_bytes: int) -> float:
        """Return how many seconds to wait before ``size_bytes`` may be sent; they are reserved from then."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = self._elapsed()
            begin = max(now, self._free_at)
            self._free_at = begin + size_bytes / self._rate
            return begin - now


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
        at_once: int = 1,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        """``at_once`` segments are on their way, and in memory, at the same time."""
        self._spool = spool
        self._store = store
        self._catalogue = catalogue
        self._ledger = ledger
        self._now = now
        self._at_once = at_once
        self._bandwidth = bandwidth or Bandwidth(0)
        self._altered: set[ObjectKey] = set()

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
        moved += self._upload_these(pending, stop or Stop())
        if moved:
            self._measure(self._spool.pending())
        self._write_down(given_up)
        return moved

    def _upload_these(self, pending: Sequence[Segment], stop: Stop) -> int:
        """Upload until one cannot be; then what is on its way is finished, and the error raised."""
        queue = iter([one for one in pending if one.object_key not in self._altered])
        lock = Lock()
        failed: list[BaseException] = []

        def work(_: int = 0) -> int:
            moved = 0
            while not failed and not stop.is_set():
                with lock:
                    segment = next(queue, None)
                if segment is None:
                    break
                try:
                    moved += self._upload(segment, stop)
                except BaseException as error:  # noqa: BLE001 - raised again where the pass began
                    failed.append(error)
            return moved

        workers = min(self._at_once, len(pending))
        if workers > 1:
            with ThreadPoolExecutor(workers, thread_name_prefix="upload") as pool:
                moved = sum(pool.map(work, range(workers)))
        else:
            moved = work()
        for error in failed:
            raise error
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

    def _upload(self, segment: Segment, stop: Stop) -> bool:
        if stop.wait(self._bandwidth.delay(segment.size_bytes)):
            return False
        file = self._spool.as_sealed(segment)
        if (file is None or not self._store.link(segment.object_key, file)) and not self._put(segment):
            return False
        self._catalogue.add(segment)
        self._spool.drop(segment)
        telemetry.UPLOADED_SEGMENTS.inc()
        telemetry.UPLOADED_BYTES.inc(segment.size_bytes)
        telemetry.UPLOAD_SECONDS.observe(max(0.0, (self._now() - segment.span.end).total_seconds()))
        return True

    def _put(self, segment: Segment) -> bool:
        sealed = self._spool.read(segment)
        if sealed is None:
            self._spool.drop(segment)
            return False
        try:
            self._store.put(segment.object_key, sealed, sha256=segment.sha256)
        except IntegrityError:
            if hashlib.sha256(sealed).hexdigest() == segment.sha256:
                raise
            self._leave(segment)
            return False
        return True

    def _leave(self, segment: Segment) -> None:
        """Hold up no other segment for one that the spool's disk has altered. It stays until it is due."""
        self._altered.add(segment.object_key)
        log.error(
            "segment.altered",
            object_key=segment.object_key,
            hint="Its bytes in the spool are not those that were sealed: check the disk.",
        )

    def _measure(self, pending: list[Segment]) -> None:
        telemetry.SPOOL_SEGMENTS.set(len(pending))
        telemetry.SPOOL_BYTES.set(self._spool.size_bytes())
        telemetry.SPOOL_OLDEST.set(pending[0].span.start.timestamp() if pending else 0)
