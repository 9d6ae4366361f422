"""One pass of retention: what is due loses its key, then its bytes, then its rows; and it is certified.

The order (invariant 5), each step finished by the next pass if this one dies in between:

1. condemned in the catalogue
2. hour key destroyed
3. objects deleted, absence confirmed by the store
4. certificate in the ledger
5. rows forgotten

What is due is found three ways, and configuration is none of them (invariant 3): keys that exist,
rows that exist, objects that exist. A failing part never stops the others: with store or catalogue
down, keys are still destroyed on time, and the bytes follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from videostore import telemetry
from videostore.domain.clock import Doubt, Reading
from videostore.domain.errors import VideostoreError
from videostore.domain.ledger import Event, Json
from videostore.domain.presence import PRESENCE
from videostore.domain.retention import Certificate, RetentionPolicy, hash_of_segments
from videostore.domain.segment import EPOCH, SEGMENTS, KeyId, ObjectKey, Segment, Span, day_prefix
from videostore.ports import Catalogue, Clock, Holding, HourKey, Keyring, Ledger, SegmentStore
from videostore.retention.journal import ACTOR, Journal

log = telemetry.logger("retention")

ABSENCE = "the store answered that the object does not exist"
_BATCH = 500


@dataclass(slots=True)
class SweepReport:
    """What one pass did. ``errors`` are one line each; empty means that nothing was left undone."""

    reading: Reading
    keys_created: int = 0
    keys_destroyed: list[HourKey] = field(default_factory=list)
    segments_condemned: int = 0
    segments_deleted: int = 0
    bytes_deleted: int = 0
    strangers_deleted: int = 0
    copies_removed: int = 0
    certificates: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Keys:
    """The hour keys of one kind of data, and the places besides the store that hold copies sealed to them."""

    policy: RetentionPolicy
    keyring: Keyring
    holdings: Sequence[Holding] = ()


class Sweep:
    """Retention of one site. ``run`` is one pass; it may be killed at any line and run again."""

    def __init__(
        self,
        *,
        video: Keys,
        entry_exit: Keys,
        clock: Clock,
        store: SegmentStore,
        catalogue: Catalogue,
        ledger: Ledger,
    ) -> None:
        self._video = video
        self._kinds = (video, entry_exit)
        self._clock = clock
        self._store = store
        self._catalogue = catalogue
        self._ledger = ledger
        self._journal = Journal(ledger)
        self._doubt: Doubt | None = None

    def run(self) -> SweepReport:
        """Do everything that is due, and say what was done and what could not be."""
        report = SweepReport(self._clock.read())
        steps: list[tuple[str, Callable[[SweepReport], None]]] = [
            ("clock", self._note_doubt),
            ("condemn", self._condemn),
            ("destroy keys", self._destroy_keys),
            ("record keys", self._record_destroyed),
            ("make keys", self._create_keys),
            ("empty holdings", self._empty_holdings),
            ("find strangers", self._adopt_strangers),
            ("delete", self._delete),
            ("forget gaps", self._forget_gaps),
        ]
        for name, step in steps:
            try:
                step(report)
            except VideostoreError as error:
                report.errors.append(f"{name}: {error}")
                log.error("sweep.step-failed", step=name, error=str(error), hint=error.hint)
        self._measure(report)
        return report

    def next_due(self) -> datetime | None:
        """Return when the next hour key is due, so that the next pass comes then."""
        moments = [
            kind.policy.judge(key.key_id, now=EPOCH, promised=key.deadline).due_at
            for kind in self._kinds
            for key in kind.keyring.keys()
            if key.destroyed_at is None
        ]
        return min(moments, default=None)

    # --- finding what is due ---

    def _note_doubt(self, report: SweepReport) -> None:
        reading = report.reading
        telemetry.CLOCK_IN_DOUBT.set(0 if reading.doubt is None else 1)
        if reading.doubt is self._doubt:
            return
        self._doubt = reading.doubt
        if reading.doubt is not None:
            log.error(
                "clock.in-doubt",
                doubt=reading.doubt.value,
                earliest=reading.earliest.isoformat(),
                latest=reading.latest.isoformat(),
                hint="Check the host's clock, then run `videostore retention confirm-clock`.",
            )
            body = {
                "doubt": reading.doubt.value,
                "earliest": reading.earliest.isoformat(),
                "latest": reading.latest.isoformat(),
            }
            self._ledger.append(Event.CLOCK_IN_DOUBT, actor=ACTOR, body=body)

    def _due(self, key_id: KeyId, report: SweepReport) -> bool:
        return self._video.policy.judge(key_id, now=report.reading.earliest).due

    def _adopt_strangers(self, report: SweepReport) -> None:
        """Take due objects that the catalogue does not know into it and condemn them with the rest.

        Only capture days that can hold something due are listed, each camera only up to the first
        object that is not: the cost follows what expires, not what exists.
        """
        for prefix in self._store.prefixes(""):
            if prefix == SEGMENTS:
                self._adopt_segments(report)
            elif prefix != PRESENCE:
                for found in self._store.objects(prefix):
                    self._delete_if_old(found.key, found.stored_at, report)
        self._condemn(report)

    def _adopt_segments(self, report: SweepReport) -> None:
        last_day = day_prefix(
            (report.reading.earliest - self._video.policy.keep + self._video.policy.lead).date()
        )
        for day in self._store.prefixes(SEGMENTS):
            if day > last_day:
                break
            for camera in self._store.prefixes(day):
                batch: list[Segment] = []
                for segment in self._due_objects(camera, report):
                    batch.append(segment)
                    if len(batch) == _BATCH:
                        self._adopt(batch)
                        batch = []
                self._adopt(batch)

    def _due_objects(self, prefix: str, report: SweepReport) -> Iterator[Segment]:
        for found in self._store.objects(prefix):
            try:
                segment = Segment.from_object_key(found.key, size_bytes=found.size_bytes)
            except ValueError:
                self._delete_if_old(found.key, found.stored_at, report)
                continue
            if not self._due(segment.key_id, report):
                return
            yield segment

    def _adopt(self, segments: Sequence[Segment]) -> None:
        if segments:
            adopted = self._catalogue.adopt(segments)
            if adopted:
                log.warning("segments.adopted", segments=adopted)

    def _delete_if_old(self, key: ObjectKey, stored_at: datetime, report: SweepReport) -> None:
        """An object whose key says nothing is judged by its receipt."""
        if report.reading.earliest - stored_at < self._video.policy.keep - self._video.policy.lead:
            return
        refused = self._store.delete([key])
        if self._store.size(key) is not None or refused:
            report.errors.append(f"delete: {key} is still there{_why(refused.get(key))}")
            return
        report.strangers_deleted += 1
        log.warning("stranger.deleted", object_key=key, stored_at=stored_at.isoformat())

    # --- the five steps ---

    def _condemn(self, report: SweepReport) -> None:
        promised = {key.key_id: key for key in self._video.keyring.keys()}
        for key_id in self._catalogue.key_ids(until=report.reading.earliest):
            key = promised.get(key_id)
            verdict = self._video.policy.judge(
                key_id, now=report.reading.earliest, promised=key.deadline if key else None
            )
            if verdict.due or (key and key.destroyed_at):
                report.segments_condemned += self._catalogue.condemn(key_id)
        self._condemn_of_shorter_kept(report)

    def _condemn_of_shorter_kept(self, report: SweepReport) -> None:
        """Condemn what cameras left under keys of a longer keep, from before they were kept for less."""
        policy = self._video.policy
        for camera_id in policy.shorter:
            while key_id := self._catalogue.oldest_key(camera_id):
                if not policy.judge(key_id, now=report.reading.earliest, camera_id=camera_id).due:
                    break
                report.segments_condemned += self._catalogue.condemn(key_id, camera_id)

    def _destroy_keys(self, report: SweepReport) -> None:
        for kind in self._kinds:
            for key in kind.keyring.due():
                try:
                    destroyed = kind.keyring.destroy(key.key_id)
                except VideostoreError as error:
                    report.errors.append(f"destroy keys: {key.key_id}: {error}")
                    continue
                report.keys_destroyed.append(destroyed)
                telemetry.KEYS_DESTROYED.labels(kind=kind.policy.kind.value).inc()
                log.info("key.destroyed", kind=kind.policy.kind.value, key_id=str(key.key_id))

    def _record_destroyed(self, _: SweepReport) -> None:
        """Every destroyed key has its record, whoever destroyed it and however it ended."""
        for kind in self._kinds:
            for key in kind.keyring.keys():
                if key.destroyed_at is not None:
                    self._journal.record_destroyed(kind.policy.kind, key)

    def _delete(self, report: SweepReport) -> None:
        destroyed = {key.key_id: key for key in self._video.keyring.keys() if key.destroyed_at}
        for key_id in self._catalogue.unfinished():
            for batch in _batches(self._catalogue.condemned(key_id)):
                self._delete_batch(batch, report)
            left = {segment.camera_id for segment in self._catalogue.condemned(key_id)}
            rows = self._catalogue.absent(key_id)
            for camera_id, group in groupby(rows, key=lambda segment: segment.camera_id):
                if camera_id not in left:
                    self._certify(list(group), destroyed.get(key_id), report)

    def _delete_batch(self, batch: Sequence[Segment], report: SweepReport) -> None:
        absent: list[ObjectKey] = []
        try:
            refused = self._store.delete([segment.object_key for segment in batch])
        except VideostoreError as error:
            report.errors.append(f"delete: {batch[0].object_key} and {len(batch) - 1} more: {error}")
            return
        for segment in batch:
            why = refused.get(segment.object_key)
            try:
                present = why is not None or self._store.size(segment.object_key) is not None
            except VideostoreError as error:
                report.errors.append(f"delete: {segment.object_key}: {error}")
                continue
            if present:
                report.errors.append(f"delete: {segment.object_key} is still there{_why(why)}")
                continue
            absent.append(segment.object_key)
            report.segments_deleted += 1
            report.bytes_deleted += segment.size_bytes
            deadline = self._video.policy.deadline(segment.key_id)
            lateness = (self._clock.read().latest - deadline).total_seconds()
            telemetry.DELETION_LATENESS.observe(max(0.0, lateness))
            telemetry.SEGMENTS_DELETED.inc()
        if absent:
            self._catalogue.mark_absent(absent)

    def _certify(self, segments: Sequence[Segment], key: HourKey | None, report: SweepReport) -> None:
        first = segments[0]
        certificate = Certificate(
            camera_id=first.camera_id,
            key_id=first.key_id,
            recipient=key.recipient if key else None,
            key_destroyed_at=key.destroyed_at if key else None,
            span=Span(first.span.start, max(segment.span.end for segment in segments)),
            segments=len(segments),
            size_bytes=sum(segment.size_bytes for segment in segments),
            segments_sha256=hash_of_segments(segments),
            confirmed_at=self._clock.now(),
            absence=ABSENCE,
            deadline=self._video.policy.deadline(first.key_id),
        )
        if self._journal.certify(certificate):
            report.certificates.append(certificate.id)
            telemetry.CERTIFICATES.inc()
        self._catalogue.forget([segment.object_key for segment in segments])
        log.info(
            "footage.certified",
            camera_id=str(first.camera_id),
            key_id=str(first.key_id),
            segments=len(segments),
            certificate_id=certificate.id,
        )

    # --- everything else that holds copies ---

    def _empty_holdings(self, report: SweepReport) -> None:
        for kind in self._kinds:
            gone = {key.key_id for key in kind.keyring.keys() if key.destroyed_at}
            for holding in kind.holdings:
                for key_id in holding.key_ids():
                    if key_id in gone or kind.policy.judge(key_id, now=report.reading.earliest).due:
                        removed = holding.remove(key_id)
                        report.copies_removed += removed
                        log.info("copies.removed", holding=holding.name, key_id=str(key_id), copies=removed)

    def _forget_gaps(self, report: SweepReport) -> None:
        self._catalogue.forget_gaps(until=report.reading.earliest - self._video.policy.keep)

    def _create_keys(self, report: SweepReport) -> None:
        for kind in self._kinds:
            created = kind.keyring.create_ahead()
            report.keys_created += len(created)
            if created:
                body: dict[str, Json] = {
                    "kind": kind.policy.kind.value,
                    "keys": [{"key_id": str(key.key_id), "recipient": key.recipient} for key in created],
                }
                self._ledger.append(Event.KEY_CREATED, actor=ACTOR, body=body)

    # --- saying how it stands ---

    def _measure(self, report: SweepReport) -> None:
        outcome = "failed" if report.errors else "doubtful" if report.reading.doubt else "complete"
        telemetry.SWEEPS.labels(outcome=outcome).inc()
        if outcome == "complete":
            telemetry.LAST_SWEEP.set(report.reading.earliest.timestamp())
        for kind in self._kinds:
            live = [key for key in kind.keyring.keys() if key.destroyed_at is None]
            name = kind.policy.kind.value
            telemetry.KEYS_LIVE.labels(kind=name).set(len(live))
            telemetry.KEEP_SECONDS.labels(kind=name).set(kind.policy.keep.total_seconds())
            telemetry.LEAD_SECONDS.labels(kind=name).set(kind.policy.lead.total_seconds())
            ahead = max((key.key_id.span.end for key in live), default=report.reading.latest)
            telemetry.KEYS_AHEAD_SECONDS.labels(kind=name).set(
                max(0.0, (ahead - report.reading.latest).total_seconds())
            )
        try:
            totals = self._catalogue.totals()
        except VideostoreError as error:
            report.errors.append(f"totals: {error}")
            return
        telemetry.CONDEMNED.set(totals.condemned)
        telemetry.OLDEST_FOOTAGE.set(totals.oldest.timestamp() if totals.oldest else 0)
        overdue = [
            key_id
            for key_id in self._catalogue.unfinished()
            if report.reading.latest >= self._video.policy.deadline(key_id)
        ]
        telemetry.OVERDUE.set(sum(len(self._catalogue.condemned(key_id)) for key_id in overdue))


def _why(reason: str | None) -> str:
    return f": {reason}" if reason else ""


def _batches(segments: Sequence[Segment]) -> Iterator[Sequence[Segment]]:
    for at in range(0, len(segments), _BATCH):
        yield segments[at : at + _BATCH]
