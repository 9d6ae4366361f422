"""One pass of retention: what is due loses its key, then its bytes, then its rows; and it is certified.

The order (invariant 5), each step finished by the next pass if this one dies in between:

1. condemned in the catalogue
2. hour key destroyed
3. objects deleted, absence confirmed by the store
4. certificate in the ledger
5. rows forgotten

What is due is found three ways, and configuration is none of them (invariant 3): keys that exist,
rows that exist, objects that exist. A failing part never stops the others: with store or catalogue
down, keys are still destroyed on time, and the bytes follow. See docs/design/0015-the-sweep.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from videostore import telemetry
from videostore.domain.clock import Doubt
from videostore.domain.errors import VideostoreError
from videostore.domain.ledger import Event
from videostore.domain.retention import Kind, RetentionPolicy, SegmentState
from videostore.domain.segment import EPOCH, KeyId
from videostore.ports import Catalogue, Clock, Holding, HourKey, Keyring, Ledger, SegmentStore
from videostore.retention.deletion import Deletion
from videostore.retention.journal import Journal
from videostore.retention.pace import Pace
from videostore.retention.reconcile import Reconciler
from videostore.retention.report import ACTOR, Pass, SweepReport, log


@dataclass(frozen=True, slots=True)
class Keys:
    """The hour keys of one kind of data, and the places besides the store that hold copies sealed to them."""

    policy: Callable[[], RetentionPolicy]
    keyring: Keyring
    holdings: Sequence[Holding] = ()


class Sweep:
    """Retention of one site. ``run`` is one pass; it may be killed at any line and run again.

    One object serves all passes of a process: it remembers what of the ledger it has read, and how far its
    round over the store has come. ``bookmark`` is a file that keeps the former over restarts; the latter is
    in ``round.json`` beside it.
    """

    def __init__(
        self,
        *,
        video: Keys,
        entry_exit: Keys,
        clock: Clock,
        store: SegmentStore,
        catalogue: Catalogue,
        ledger: Ledger,
        pace: Pace,
        bookmark: Path | None = None,
    ) -> None:
        self._keys = {Kind.VIDEO: video, Kind.ENTRY_EXIT: entry_exit}
        self._clock = clock
        self._catalogue = catalogue
        self._ledger = ledger
        self._journal = Journal(ledger, bookmark=bookmark)
        self._deletion = Deletion(
            store=store, catalogue=catalogue, journal=self._journal, clock=clock, pace=pace
        )
        self._reconciler = Reconciler(
            store=store,
            catalogue=catalogue,
            journal=self._journal,
            bookmark=bookmark and bookmark.with_name("round.json"),
        )
        self._doubt: Doubt | None = None

    def run(self, go_on: Callable[[], bool] = lambda: True) -> SweepReport:
        """Do everything that is due, and say what was done and what could not be.

        ``go_on`` is asked before each piece of work that can wait: a pass that deletes for hours would be
        late for the next key.
        """
        self._journal.begin()
        reading = self._clock.read()
        policies = {kind: keys.policy() for kind, keys in self._keys.items()}
        report = SweepReport(reading)
        this = Pass(reading, policies, {kind: {} for kind in Kind}, go_on, report)
        steps: list[tuple[str, Callable[[Pass], None]]] = [
            ("clock", self._note_doubt),
            ("read keys", self._read_keys),
            ("end keys", self._end_keys),
            ("record keys", self._record_destroyed),
            ("make keys", self._create_keys),
            ("record keys made", self._record_created),
            ("look ahead", self._look_ahead),
            ("empty holdings", self._empty_holdings),
            ("condemn what is kept for less", self._condemn_of_shorter_kept),
            ("find strangers", self._reconciler.search),
            ("delete", self._delete),
            ("compare", self._compare),
            ("forget gaps", self._forget_gaps),
            ("settle", self._settle),
            ("measure", self._measure),
        ]
        for name, step in steps:
            try:
                step(this)
            except Exception as error:  # noqa: BLE001 - no step, whatever it meets, keeps another from its work
                this.failed(name, error)
        outcome = "failed" if this.report.errors else "doubtful" if reading.doubt else "complete"
        telemetry.SWEEPS.labels(outcome=outcome).inc()
        if outcome == "complete":
            telemetry.LAST_SWEEP.set(reading.earliest.timestamp())
        return this.report

    # --- the clock ---

    def _note_doubt(self, this: Pass) -> None:
        reading = this.reading
        telemetry.CLOCK_IN_DOUBT.set(0 if reading.doubt is None else 1)
        if reading.doubt is self._doubt:
            return
        if reading.doubt is not None:
            body = {
                "doubt": reading.doubt.value,
                "earliest": reading.earliest.isoformat(),
                "latest": reading.latest.isoformat(),
            }
            hint = "Check the host's clock, then run `videostore retention confirm-clock`."
            log.error("clock.in-doubt", **body, hint=hint)
            self._ledger.append(Event.CLOCK_IN_DOUBT, actor=ACTOR, body=body)
        self._doubt = reading.doubt

    # --- keys: nothing may hold these up ---

    def _read_keys(self, this: Pass) -> None:
        for kind, keys in self._keys.items():
            this.keys[kind].update((key.key_id, key) for key in keys.keyring.keys())

    def _end_keys(self, this: Pass) -> None:
        """Condemn and destroy, the earliest deadline first. A catalogue that fails is asked no more."""
        rows, condemning = self._rows_due(this)
        for kind, keys in self._keys.items():
            try:
                due = {key.key_id: key for key in keys.keyring.due()}
            except VideostoreError as error:  # one kind of data waits for no other
                this.failed(f"end keys of {kind}", error)
                due = {}
            leaving = rows if kind is Kind.VIDEO else set()
            for key_id in sorted(due.keys() | leaving, key=this.policies[kind].deadline):
                if kind is Kind.VIDEO and condemning:
                    condemning = self._condemn(key_id, this)
                if key_id in due:
                    self._destroy(kind, due[key_id], this)

    def _rows_due(self, this: Pass) -> tuple[set[KeyId], bool]:
        """Return the keys of live rows that are due or destroyed, and whether the catalogue answers."""
        try:
            return {one for one in self._catalogue.key_ids(until=this.now) if this.due(one)}, True
        except Exception as error:  # noqa: BLE001 - nothing that stands in the catalogue saves a key
            this.failed("condemn", error)
            return set(), False

    def _condemn(self, key_id: KeyId, this: Pass) -> bool:
        try:
            this.report.segments_condemned += self._catalogue.condemn(key_id)
        except Exception as error:  # noqa: BLE001 - as above
            this.failed(f"condemn {key_id}", error)
            return False
        return True

    def _destroy(self, kind: Kind, key: HourKey, this: Pass) -> None:
        try:
            destroyed = self._keys[kind].keyring.destroy(key.key_id)
        except Exception as error:  # noqa: BLE001 - no key, whatever is wrong with it, saves another
            this.failed(f"destroy {key.key_id}", error)
            return
        deadline = min(key.deadline, this.policies[kind].deadline(key.key_id))
        late = max(0.0, (this.reading.latest - deadline).total_seconds())
        telemetry.KEY_LATENESS.labels(kind=kind.value).observe(late)
        telemetry.KEYS_DESTROYED.labels(kind=kind.value).inc()
        this.keys[kind][key.key_id] = destroyed
        this.report.keys_destroyed.append(destroyed)
        log.info("key.destroyed", kind=kind.value, key_id=str(key.key_id), late_s=late)

    def _record_destroyed(self, this: Pass) -> None:
        """Every destroyed key has its record, whoever destroyed it and however it ended."""
        for kind, keys in this.keys.items():
            for key in keys.values():
                if key.destroyed_at is not None:
                    self._journal.record_destroyed(kind, key)

    def _create_keys(self, this: Pass) -> None:
        for kind, keys in self._keys.items():
            created = keys.keyring.create_ahead()
            this.report.keys_created += len(created)
            this.keys[kind].update((key.key_id, key) for key in created)

    def _record_created(self, this: Pass) -> None:
        """Every key has its record, also one that was made while the ledger refused it."""
        for kind, keys in this.keys.items():
            self._journal.record_created(kind, keys.values())

    def _look_ahead(self, this: Pass) -> None:
        moments = [
            this.policies[kind].judge(key.key_id, now=EPOCH, promised=key.deadline).due_at
            for kind, keys in this.keys.items()
            for key in keys.values()
            if key.destroyed_at is None
        ]
        this.report.next_due = min((one for one in moments if one > this.now), default=None)

    # --- bytes ---

    def _empty_holdings(self, this: Pass) -> None:
        for kind, keys in self._keys.items():
            gone = {key.key_id for key in this.keys[kind].values() if key.destroyed_at}
            for holding in keys.holdings:
                try:
                    due = [
                        one
                        for one in holding.key_ids()
                        if one in gone or this.policies[kind].judge(one, now=this.now).due
                    ]
                    for key_id in due:
                        removed = holding.remove(key_id)
                        this.report.copies_removed += removed
                        log.info("copies.removed", holding=holding.name, key_id=str(key_id), copies=removed)
                except Exception as error:  # noqa: BLE001 - no place, whatever is wrong with it, saves another
                    this.failed(f"empty {holding.name}", error)

    def _condemn_of_shorter_kept(self, this: Pass) -> None:
        """Condemn what cameras left under keys of a longer keep, from before they were kept for less."""
        for camera_id in this.video.of_less:
            while key_id := self._catalogue.oldest_key(camera_id):
                if not this.video.judge(key_id, now=this.now, camera_id=camera_id).due:
                    break
                condemned = self._catalogue.condemn(key_id, camera_id)
                if not condemned:
                    break  # a row that was altered so that it is in no key; the search finds its object
                this.report.segments_condemned += condemned

    def _delete(self, this: Pass) -> None:
        next_due, go_on = this.report.next_due, this.go_on

        def has_time() -> bool:
            return go_on() and (next_due is None or self._clock.now() < next_due)

        self._deletion.run(replace(this, go_on=has_time))

    def _compare(self, this: Pass) -> None:
        known = this.report.segments_adopted
        self._reconciler.round(this)
        if this.report.segments_adopted > known:
            self._delete(this)

    def _forget_gaps(self, this: Pass) -> None:
        self._catalogue.forget_gaps(until=this.now - this.video.keep)

    def _settle(self, _: Pass) -> None:
        if not any(self._catalogue.absent(key_id) for key_id in self._catalogue.unfinished()):
            self._journal.settle()

    # --- saying how it stands ---

    def _measure(self, this: Pass) -> None:
        for kind, keys in this.keys.items():
            _measure_keys(kind, this.policies[kind], keys.values(), this.reading.latest)
        leaving = self._catalogue.leaving()
        stand = dict.fromkeys((SegmentState.CONDEMNED, SegmentState.ABSENT), 0)
        overdue = 0
        for (key_id, camera_id, state), count in leaving.items():
            stand[state] += count
            late = this.reading.latest >= this.video.deadline(key_id, camera_id=camera_id)
            overdue += count if late and state is SegmentState.CONDEMNED else 0
        for state, count in stand.items():
            telemetry.CONDEMNED.labels(state=state.value).set(count)
        telemetry.OVERDUE.set(overdue)
        oldest = self._catalogue.oldest()
        telemetry.OLDEST_FOOTAGE.set(oldest.timestamp() if oldest else 0)


def _measure_keys(kind: Kind, policy: RetentionPolicy, keys: Iterable[HourKey], now: datetime) -> None:
    live = [key.key_id for key in keys if key.destroyed_at is None]
    telemetry.KEYS_LIVE.labels(kind=kind.value).set(len(live))
    oldest = min((key_id.start for key_id in live), default=EPOCH)
    telemetry.OLDEST_KEY.labels(kind=kind.value).set(oldest.timestamp())
    telemetry.KEEP_SECONDS.labels(kind=kind.value).set(policy.keep.total_seconds())
    telemetry.LEAD_SECONDS.labels(kind=kind.value).set(policy.lead.total_seconds())
    usable = (key.key_id.span.end for key in keys if key.destroyed_at is None and key.recipient)
    ahead = max(usable, default=now)
    telemetry.KEYS_AHEAD_SECONDS.labels(kind=kind.value).set(max(0.0, (ahead - now).total_seconds()))
