"""Thirty-five days of retention on a virtual clock, with everything going wrong.

``python bench/retention_sim.py --days 35 --cameras 1000 --json``

Real parts: sweep, guarded clocks, keyring, ledger, SQLite catalogue, sealing, the site's files of cameras and
policies. Simulated: time, cameras, and a store that answers 403, 503 or nothing, loses answers after the
deed, breaks off listings, is away for days, and has its versions switched on by mistake. Cameras and groups
are renamed, cameras are moved to another group, disabled and removed; groups and the site's keep become
shorter and longer again; the clocks of retention's host *and* of the recorder's are stepped by NTP, both
ways, and set wrong by days, with a restart while they are; cameras lie about the time; the process is killed
at random calls; the catalogue is put back from an old backup. The host lives in Sydney until the middle of
October and in Zurich from then on: one night has an hour less, another one more (both from 23 days on).

A segment stands for what one camera recorded in 15 minutes: ``--hours`` a day, ``--segments`` an hour (else
2 and 3). Real ones are of 10 s; what is judged is each key and each object, whatever their length.

Judged by true time and by nothing of what is tested: a segment is *late* while the keyring opens it past its
deadline, counted from when its frames were before the camera in truth; an object is *overdue* when any
version of it is in the store past its deadline at the end; a deletion is *early* when it comes before what
the lead and the bound on the clocks' errors allow. All must be 0. Nothing goes wrong in the last tenth of the
time: bytes may follow late, but they do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml

from videostore import telemetry
from videostore.catalogue.sql import SqlCatalogue
from videostore.config.cameras import write_cameras
from videostore.config.site import Site, create_site
from videostore.domain.camera import Camera, CameraId
from videostore.domain.errors import (
    CatalogueUnavailable,
    KeyringError,
    LedgerUnavailable,
    StoreRefused,
    StoreUnavailable,
    VideostoreError,
)
from videostore.domain.retention import Kind, RetentionPolicy
from videostore.domain.segment import SITE_KEEP, KeyId, ObjectKey, Segment, Sha256Hex, Span, capture_time
from videostore.keyring.files import FileKeyring, PublishedKeys
from videostore.keyring.master import MasterKeyFile
from videostore.ledger.files import FileLedger
from videostore.retention.clock import GuardedClock
from videostore.retention.pace import Pace
from videostore.retention.policies import PoliciesOnRecord
from videostore.retention.sweep import Keys, Sweep
from videostore.sealing import seal
from videostore.signing import SigningKey
from videostore.synthetic.mishaps import KILL, Killed, VersionedStore, Wire, World

HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)
TICK, LEAD, JUMP, AHEAD = 15 * MINUTE, 15 * MINUTE, 5 * MINUTE, 6 * HOUR
WINTER_TIME = datetime(2026, 10, 26, tzinfo=UTC)  # the night before, clocks of Europe went back
MOVED = datetime(2026, 10, 15, tzinfo=UTC)  # between the nights of Sydney and of Zurich
GATES, YARDS, DESKS = "gates", "yards", "desks"
"""Groups that are kept for less; all other cameras as long as the site keeps."""


@dataclass
class Watched:
    """A copy of one segment that a thief keeps: when does it open no more?"""

    segment: Segment
    sealed: bytes
    deadline: datetime
    segments: int = 1
    late_s: float = 0.0


@dataclass(frozen=True)
class Result:
    """What is printed."""

    segments_created: int
    segments_deleted: int
    lateness_p50_s: float
    lateness_p99_s: float
    lateness_max_s: float
    overdue: int
    early_deletions: int
    faults_injected: int
    restarts: int
    days: float
    cameras: int
    segments_a_camera_and_day: int

    @property
    def ok(self) -> bool:
        return self.overdue == self.early_deletions == 0 and self.lateness_max_s == 0


class Simulation:
    """One site. Everything that lasts is in ``root``, in the store and in the spool of the recorder."""

    name = "spool"

    def __init__(
        self, root: Path, *, days: float, cameras: int, seed: int, hours: int = 2, segments: int = 3
    ) -> None:
        self.root, self.days, self.hours, self.segments = root, days, hours, segments
        start = WINTER_TIME - min(days, 25) * DAY
        start = start.replace(minute=0, second=0, microsecond=0)
        self.world = World(start, seed, kill=min(KILL, 0.02 / cameras))
        self._move_host("Australia/Sydney" if start < MOVED else "Europe/Zurich")
        self.end = self.world.start + days * DAY
        keep = min(30 * DAY, timedelta(hours=int(days * 24 * 6 / 7)))
        self.long, self.short, self.shortest = (
            keep,
            max(4 * HOUR, _hours(keep / 4)),
            max(3 * HOUR, _hours(keep / 30)),
        )
        self.cameras = [UUID(int=self.world.random.getrandbits(128), version=4) for _ in range(cameras)]
        parts = [self.cameras[at::10] for at in range(10)]
        self.groups = {GATES: self.short, YARDS: self.short, DESKS: self.shortest}
        self.loosened, self.tightened, self.removed = parts[1], parts[3], parts[2][::2] + parts[4][::2]
        self.renamed = parts[0][::2] + parts[5][::2]
        grouped = (
            dict.fromkeys(parts[0], GATES) | dict.fromkeys(parts[1], YARDS) | dict.fromkeys(parts[2], DESKS)
        )
        (root / "site").mkdir()
        create_site(root / "site", name="simulated")
        self.site = Site.load(root / "site")
        self.listed = {
            one: Camera(one, f"camera-{number}", "rtsp://127.0.0.1/one", group=grouped.get(one, ""))
            for number, one in enumerate(self.cameras)
        }
        self.lies = [None, DAY, -DAY, timedelta(seconds=-10), timedelta(seconds=10)]
        self.site_keep = keep
        self.caps: list[
            tuple[datetime, timedelta]
        ] = []  # a shorter site keep, and up to which key it reached
        self.short_until: dict[CameraId, tuple[datetime, timedelta]] = {}
        self.begun: dict[ObjectKey, datetime] = {}  # of the key or, if that is later, of the first frame
        self.deadlines: dict[ObjectKey, datetime] = {}
        self.watched: dict[tuple[KeyId, timedelta], Watched] = {}
        self.pending: dict[ObjectKey, tuple[Segment, bytes]] = {}
        self.created = self.deleted = self.restarts = self.early_keys = 0
        self.known_destroyed: set[KeyId] = set()
        self.store = VersionedStore(self.world, self._is_early)
        self.master = MasterKeyFile(root / "master.key")
        self.master.renew()
        self.signer = SigningKey.create(root / "ledger.key")
        self.entry_exit = RetentionPolicy(Kind.ENTRY_EXIT, 24 * HOUR, LEAD, HOUR)
        self._write_policy()
        self.start_process()
        self.recorder_error = timedelta(0)
        self.start_recorder()
        clock = self._clock()
        self.gate_policies = self._policies(clock)
        self.gate = self._keyring("keys", lambda: self.gate_policies()[Kind.VIDEO], clock)

    # --- the site's process ---

    def policy(self) -> RetentionPolicy:
        return self.wanted[Kind.VIDEO]

    def _write_policy(self) -> None:
        """Write the two files as people do, and read them as a site does."""
        write_cameras(self.site.root / "cameras.yaml", list(self.listed.values()))
        video = {
            "keep": _text(self.site_keep), "lead": _text(LEAD), "key_period": _text(HOUR),
            "groups": {name: _text(keep) for name, keep in self.groups.items()},
        }  # fmt: skip
        entry_exit = {"keep": "24h", "lead": _text(LEAD), "key_period": _text(HOUR)}
        content = {"version": 1, "video": video, "entry_exit": entry_exit}
        (self.site.root / "policies" / "retention.yaml").write_text(yaml.safe_dump(content))
        self.wanted = self.site.retention()

    def _change(self, cameras: Sequence[CameraId], **fields: Any) -> None:
        self.listed |= {one: replace(self.listed[one], **fields) for one in cameras}

    def _policies(self, clock: GuardedClock) -> PoliciesOnRecord:
        """Return what a process judges by: the policy, and what the ledger says of earlier ones."""
        ledger = FileLedger(self.root / "ledger", key=self.signer, clock=clock)
        return PoliciesOnRecord(
            lambda: self.wanted,
            ledger=lambda: ledger,
            clock=clock,
            elapsed=self.world.elapsed,
        )

    def _clock(self, mark: str = "clock.json", host: Callable[[], datetime] | None = None) -> GuardedClock:
        world = self.world
        return GuardedClock(
            self.root / mark, max_jump=JUMP, max_off=DAY,
            witness=lambda: None if world.is_away("store") else world.true,
            host=host or world.host, elapsed=world.elapsed,
        )  # fmt: skip

    def start_recorder(self) -> None:
        """A host of its own: another clock, another mark, public keys only."""
        clock = self._clock("recorder.json", lambda: self.world.true + self.recorder_error)
        policies = self._policies(clock)
        self.recorder_clock = clock
        self.recorder_policy = lambda: policies()[Kind.VIDEO]
        self.published = PublishedKeys(
            self.root / "keys", signed_by=self.signer.public, policy=self.recorder_policy, clock=clock
        )

    def _keyring(self, name: str, policy: Callable[[], RetentionPolicy], clock: GuardedClock) -> FileKeyring:
        return FileKeyring(
            self.root / name,
            master_key=self.master,
            signing_key=self.signer,
            policy=policy,
            clock=clock,
            ahead=AHEAD,
        )

    def start_process(self) -> None:
        self.clock = self._clock()
        ledger = FileLedger(self.root / "ledger", key=self.signer, clock=self.clock)
        self.catalogue = SqlCatalogue.open(f"sqlite:///{self.root}/catalogue.db")
        world = self.world
        away = {StoreUnavailable: 0.005, StoreRefused: 0.002}
        self.wired_catalogue = Wire(self.catalogue, world, "catalogue", {CatalogueUnavailable: 0.002})
        self.wired_store = Wire(self.store, world, "store", away)
        policies = self._policies(self.clock)
        video, entry_exit = (lambda kind=kind: policies()[kind] for kind in Kind)
        self.keys = self._keyring("keys", video, self.clock)
        presence = self._keyring("presence-keys", entry_exit, self.clock)
        self.sweep = Sweep(
            video=Keys(video, Wire(self.keys, world, "keyring", {}), [self]),
            entry_exit=Keys(entry_exit, Wire(presence, world, "keyring", {})),
            clock=self.clock, store=self.wired_store, catalogue=self.wired_catalogue,
            ledger=Wire(ledger, world, "ledger", {LedgerUnavailable: 0.001}),
            pace=Pace(float("inf")), bookmark=self.root / "retention.json",
        )  # fmt: skip

    def restart(self) -> None:
        self.restarts += 1
        self.catalogue.close()
        while True:
            with suppress(Killed):
                return self.start_process()

    # --- Holding: what the recorder could not upload yet ---

    def key_ids(self) -> list[KeyId]:
        return sorted({segment.key_id for segment, _ in self.pending.values()})

    def remove(self, key_id: KeyId) -> int:
        gone = [key for key, (segment, _) in self.pending.items() if segment.key_id == key_id]
        for key in gone:
            del self.pending[key]
        return len(gone)

    # --- recording ---

    def record(self, camera_id: CameraId, hour: datetime) -> None:
        """Make the segments of one camera and hour, each stamped and sealed as a recorder does it."""
        policy, lie = self.recorder_policy(), self.lies[camera_id.int % len(self.lies)]
        off = self.recorder_clock.received() - self.world.true
        for number in range(self.segments):
            true = hour + number * HOUR / self.segments + timedelta(seconds=self.world.random.randrange(60))
            claimed = None if lie is None else true + lie
            start = capture_time(claimed, true + off, max_offset=timedelta(seconds=10))
            key_id = policy.key_id(camera_id, start)
            if not self.published.has(key_id):
                key_id = KeyId.covering(start, HOUR)
            try:
                recipient = self.published.recipient(key_id)
            except KeyringError:
                continue  # a gap: the keyring made no keys for so long, or the clock is in doubt
            sealed = seal(b"frames", recipient=recipient)
            digest = Sha256Hex(hashlib.sha256(sealed).hexdigest())
            segment = Segment(
                camera_id, Span(start, start + 15 * MINUTE), number, HOUR, len(sealed), digest, key_id.keep
            )
            self.pending[segment.object_key] = segment, sealed
            self.created += 1
            self._watch(segment, sealed, true)

    def _watch(self, segment: Segment, sealed: bytes, true: datetime) -> None:
        keep = min(self.policy().keep_of(segment.camera_id), segment.keep or self.site_keep)
        if segment.keep == SITE_KEEP:
            keep = min([keep, *(cap for until, cap in self.caps if segment.key_id.start <= until)])
        key, begun = segment.object_key, min(segment.key_id.start, true)
        self.begun[key], self.deadlines[key] = begun, begun + keep
        first = self.watched.setdefault((segment.key_id, keep), Watched(segment, sealed, true + keep, 0))
        first.segments += 1
        first.deadline = min(first.deadline, true + keep)

    def upload(self) -> None:
        """Put what is pending. What fails stays; an answer may be lost after the deed."""
        for key, (segment, sealed) in list(self.pending.items()):
            try:
                self.wired_store.put(key, sealed, sha256=segment.sha256)
                self.wired_catalogue.add(segment)
            except (VideostoreError, Killed):
                if self.world.is_away("store"):
                    return
                continue
            del self.pending[key]

    # --- judging ---

    def _is_early(self, key: ObjectKey) -> bool:
        if key not in self.deadlines:
            return False
        segment, deadline = Segment.from_object_key(key, size_bytes=0), self.deadlines[key]
        start = segment.key_id.start
        until, keep = self.short_until.get(segment.camera_id, (start - DAY, self.short))
        if start <= until:
            deadline = min(deadline, start + keep)
        return self.world.true < deadline - LEAD - JUMP

    def probe(self) -> None:
        """Try every copy past its deadline, as the gate does; one that stays shut is not tried again."""
        for name, copy in list(self.watched.items()):
            if copy.deadline > self.world.true:
                continue
            latest = self.gate._clock.read().latest  # noqa: SLF001 - the gate judges by the keyring's clock
            segment = copy.segment
            try:
                policy = self.gate_policies()[Kind.VIDEO]
                shut = latest >= policy.deadline(segment.key_id, camera_id=segment.camera_id)
                shut or self.gate.open(segment.key_id, copy.sealed)
            except KeyringError:
                shut = True
            if shut and self.world.error == timedelta(
                0
            ):  # shut for good, not only while the clock is in doubt
                self.shut.append((copy.late_s, copy.segments))
                del self.watched[name]
            elif not shut:
                copy.late_s = max(copy.late_s, (self.world.true - copy.deadline).total_seconds() or 1e-6)

    shut: list[tuple[float, int]]

    def judge_keys(self) -> None:
        for key in self.gate.keys():
            if key.destroyed_at is None or key.key_id in self.known_destroyed:
                continue
            self.known_destroyed.add(key.key_id)
            caps = [
                cap for until, cap in self.caps if key.key_id.keep == SITE_KEEP and key.key_id.start <= until
            ]
            deadline = key.key_id.start + min([key.key_id.keep or self.long, *caps])
            self.early_keys += self.world.true < deadline - LEAD - JUMP

    def overdue(self) -> int:
        return sum(
            self.deadlines.get(found.key, self.end) <= self.world.true for found in self.store.remains()
        ) + sum(
            key.key_id.start + (key.key_id.keep or self.long) <= self.world.true and key.destroyed_at is None
            for key in self.gate.keys()
        )

    # --- what happens ---

    def plan_events(self) -> dict[datetime, list[Callable[[], None]]]:
        """Return what goes wrong when, spread over the first nine tenths."""
        world, span = self.world, self.end - self.world.start
        events: dict[datetime, list[Callable[[], None]]] = defaultdict(list)

        def at(share: float, what: Callable[[], None], after: timedelta = timedelta(0)) -> None:
            moment = world.start + _ticks(span * share) + after
            if moment < world.start + span * 0.9:
                world.faults += 1
            events[moment].append(what)

        def away(what: str, share: float) -> Callable[[], None]:
            return lambda: world.away.update({what: world.true + span * share})

        for share, part, length in ((0.2, "store", 0.02), (0.45, "catalogue", 0.01), (0.86, "store", 0.03)):
            at(share, away(part, length))
        self._plan_clocks(at)
        at(0.3, lambda: setattr(self.store, "versions", True))
        at(0.4, self._delete_some_plainly)
        at(0.6, lambda: setattr(self.store, "versions", False))
        at(0.15, self._rename)
        at(0.35, self._tighten)
        at(0.42, lambda: self._loosen(self.tightened))  # what exists gets nothing back
        at(0.5, lambda: self._loosen(self.loosened))
        at(0.55, self._remove_cameras)
        at(0.62, lambda: self._site_keep(_hours(self.long * 0.9)))
        at(0.62, lambda: self._site_keep(self.long), 8 * TICK)
        for share in (0.25, 0.7):
            at(share, self._back_up)
            at(share + 0.06, self._restore)
        events[MOVED].append(lambda: self._move_host("Europe/Zurich"))
        return events

    def _plan_clocks(self, at: Callable[..., None]) -> None:
        """Both hosts get a wrong time for an hour each, in which every other one begins anew."""
        small = timedelta(seconds=1.5)
        errors = (40 * DAY, -5 * HOUR, 3 * HOUR, -3 * DAY, small, -small)

        def wrong(whose: object, field: str, error: timedelta) -> Callable[[], None]:
            return lambda: setattr(whose, field, error)

        for whose, field, anew, wrongs, shares in (
            (self.world, "error", self.restart, errors, ((0.1, 0.05), (0.5, 0.06))),
            (self, "recorder_error", self.start_recorder, (*errors, 4 * MINUTE, -4 * MINUTE),
             ((0.12, 0.05), (0.53, 0.045))),
        ):  # fmt: skip
            for number, error in enumerate(wrongs):
                for first, step in shares:
                    share = first + number * step
                    at(share, wrong(whose, field, error))
                    at(share, anew, 2 * TICK) if number % 2 else None
                    at(share, wrong(whose, field, timedelta(0)), 4 * TICK)

    def _move_host(self, zone: str) -> None:
        os.environ["TZ"] = zone
        time.tzset()

    def _rename(self) -> None:
        """Cameras and the group of the gates get other names: nothing of what they left lives longer."""
        for camera_id in self.renamed:
            self._change([camera_id], name=f"renamed-{self.listed[camera_id].name}")
        gates = [one for one, camera in self.listed.items() if camera.group == GATES]
        self._change(gates, group="doors")
        self.groups = {"doors" if name == GATES else name: keep for name, keep in self.groups.items()}
        self._write_policy()

    def _tighten(self) -> None:
        """What cameras left under a longer keep goes by the new one; of copies, the gate judges that."""
        self._change(self.tightened, group=YARDS)
        self._write_policy()
        tightened = set(self.tightened)
        for key, deadline in self.deadlines.items():
            if Segment.from_object_key(key, size_bytes=0).camera_id in tightened:
                self.deadlines[key] = min(deadline, self.begun[key] + self.short)

    def _loosen(self, cameras: list[CameraId]) -> None:
        """What is recorded until the loosening is on record may go by the shorter keep yet."""
        self._change(cameras, group="")
        self._write_policy()
        for camera_id in cameras:
            self.short_until[camera_id] = self.world.true + AHEAD, self.short

    def _site_keep(self, keep: timedelta) -> None:
        self.site_keep = keep
        self._write_policy()
        if keep == self.long:
            return
        until = self.world.true + AHEAD
        self.caps.append((until, keep))
        for key, deadline in self.deadlines.items():
            if Segment.from_object_key(key, size_bytes=0).keep == SITE_KEEP:
                self.deadlines[key] = min(deadline, self.begun[key] + keep)
        for (key_id, copy_keep), copy in self.watched.items():
            if key_id.keep == SITE_KEEP:
                begun = copy.deadline - copy_keep
                copy.deadline = min(copy.deadline, max(begun + keep, self.world.true + TICK))

    def _remove_cameras(self) -> None:
        """Half are removed, the others disabled. Nobody records them any more; one of a group that is kept
        for less is in none then, and what its last hour left goes by the group's keep all the same."""
        gone, off = self.removed[::2], self.removed[1::2]
        for camera_id in gone:
            if self.listed[camera_id].group == DESKS:
                self.short_until[camera_id] = self.world.true + AHEAD, self.shortest
        self._change(gone, enabled=False, removed=True, group="")
        self._change(off, enabled=False)
        self._write_policy()

    def _delete_some_plainly(self) -> None:
        keys = [f"{place}/{name}" for place, names in self.store.places.items() for name in names]
        for key in self.world.random.sample(keys, len(keys) // 50):
            self.store.delete_plainly(key)

    def _back_up(self) -> None:
        self.catalogue.close()
        shutil.copy(self.root / "catalogue.db", self.root / "backup.db")
        self.restart()

    def _restore(self) -> None:
        self.catalogue.close()
        for leftover in self.root.glob("catalogue.db-*"):
            leftover.unlink()
        shutil.copy(self.root / "backup.db", self.root / "catalogue.db")
        self.restart()

    # --- running ---

    def retain(self) -> None:
        """One turn of the loop of `videostore run retention`, and another where one is needed at once."""
        for _ in range(3):
            try:
                self.clock.advance()
                report = self.sweep.run()
            except Killed:
                self.restart()
                continue
            self.deleted += report.segments_deleted
            if not (report.errors and self.world.calm):
                return

    def retain_nothing(self) -> None:
        """What a dead retention process does: the keys are there, and that is all."""
        with suppress(Killed, VideostoreError):
            self.keys.create_ahead()

    def run(self, progress: Callable[[str], None] = lambda _: None) -> Result:
        self.shut = []
        events, schedule = self.plan_events(), defaultdict(list)
        day: date | None = None
        self.retain()
        while self.world.true < self.end:
            self.world.calm = self.world.true >= self.end - (self.end - self.world.start) / 10
            if self.world.true.date() != day:
                day = self.world.true.date()
                self._schedule(schedule)
                progress(
                    f"{day} {self.created} created, {self.deleted} deleted, {len(self.store.places)} places"
                )
            for event in events.pop(self.world.true, []):
                event()
            self.recorder_clock.read()  # as it does for each segment
            for camera_id in schedule.pop(self.world.true, []):
                self.record(camera_id, self.world.true - HOUR)
            self.upload()
            self.probe()
            if self.world.true.minute in {0, 45} or self.world.calm:  # keys are due a quarter before the hour
                self.retain()
                self.judge_keys()
                self.probe()
            self.world.true += TICK
        self.retain()
        self.probe()
        return self._result()

    def _schedule(self, schedule: dict[datetime, list[CameraId]]) -> None:
        midnight = self.world.true.replace(hour=0, minute=0)
        for camera_id in self.cameras:
            if self.listed[camera_id].enabled:
                for hour in self.world.random.sample(range(1, 25), self.hours):
                    schedule[midnight + hour * HOUR].append(camera_id)

    def _result(self) -> Result:
        late = sorted(self.shut)
        late += [(copy.late_s, copy.segments) for copy in self.watched.values() if copy.late_s]
        total = sum(segments for _, segments in late)

        def quantile(share: float) -> float:
            seen = 0
            for seconds, segments in sorted(late):
                seen += segments
                if seen >= share * total:
                    return seconds
            return 0.0

        return Result(
            segments_created=self.created,
            segments_deleted=self.deleted,
            lateness_p50_s=quantile(0.5),
            lateness_p99_s=quantile(0.99),
            lateness_max_s=max((seconds for seconds, _ in late), default=0.0),
            overdue=self.overdue(),
            early_deletions=self.store.early_deletions + self.early_keys,
            faults_injected=self.world.faults,
            restarts=self.restarts,
            days=self.days,
            cameras=len(self.cameras),
            segments_a_camera_and_day=self.hours * self.segments,
        )


def _text(length: timedelta) -> str:
    """Return a length as it stands in a policy."""
    return f"{length // timedelta(seconds=1)}s"


def _hours(length: timedelta) -> timedelta:
    return length // HOUR * HOUR


def _ticks(length: timedelta) -> timedelta:
    return length // TICK * TICK


def simulate(root: Path, *, progress: Callable[[str], None] = lambda _: None, **how: Any) -> Result:
    """Run one simulation in ``root``; ``how`` is what a Simulation takes."""
    before = os.environ.get("TZ")
    try:
        return Simulation(root, **how).run(progress)
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=float, default=35)
    parser.add_argument("--cameras", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hours", type=int, default=2, help="hours a day that a camera records, at most 24")
    parser.add_argument("--segments", type=int, default=3, help="segments an hour, at most 4")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    asked = parser.parse_args()
    telemetry.configure_logging(level=lambda: "critical")
    memory = Path("/dev/shm")  # a sync costs nothing there: durability is not what is simulated
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as root:
        result = simulate(
            Path(root), days=asked.days, cameras=asked.cameras, seed=asked.seed, hours=asked.hours,
            segments=asked.segments, progress=lambda line: print(line, file=sys.stderr),
        )  # fmt: skip
    if not asked.json:
        for name, value in asdict(result).items():
            print(f"{name:>18}  {value}")
    else:
        print(json.dumps(asdict(result)))
    sys.exit(0 if result.ok else 1)


if __name__ == "__main__":
    main()
