"""Every segment against the recorder's signed chain: is one missing, exchanged, altered, or somebody else's?

Needs the ledger's records, the recorder's public key and a store to list; no key opens anything here.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from os.path import commonprefix
from random import Random, SystemRandom

from videostore import signing
from videostore.domain.camera import CameraId
from videostore.domain.chain import CONTEXT, Item, Run, belongs, breaks, problem
from videostore.domain.errors import LedgerBroken, ObjectMissing
from videostore.domain.ledger import Event, Json, Record
from videostore.domain.segment import EPOCH, MICROSECOND, SEGMENTS, KeyId, Segment, Sha256Hex, day_prefix
from videostore.ports import SegmentStore


class Verdict(StrEnum):
    """What became of the segments of a camera and an hour key."""

    WHOLE = "whole"
    DELETED = "deleted"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One hour key of one camera. ``problem`` is empty unless the verdict is BROKEN."""

    camera_id: CameraId
    key_id: KeyId
    segments: int
    verdict: Verdict
    problem: str = ""


def verify(
    records: Iterable[Record],
    store: SegmentStore,
    *,
    public: str,
    cameras: Collection[CameraId],
    open_runs: Iterable[Mapping[str, Json]] = (),
    pending: Iterable[Segment] = (),
    destroyed: Collection[KeyId] = (),
    content: bool = True,
) -> Iterator[Finding]:
    """Yield a finding for each run of ``cameras``, and for segments that no run knows.

    ``open_runs`` and ``pending`` are what a recorder on this host has not handed over yet, ``destroyed`` the
    hour keys whose footage is lawfully gone; that of a camera kept for less may go before its key does,
    with a certificate. With ``content`` every object is read and hashed. A recorder may go on meanwhile:
    ``pending`` is read after all runs are known, and the store after it.
    """
    runs, given_up, certified = _from_ledger(records)
    for fields in open_runs:
        _collect(fields, runs)
    pending = list(pending)
    waiting = {segment.object_key for segment in pending}
    for camera_id in sorted(cameras, key=str):
        left = {*_stored(store, camera_id), *(one for one in pending if one.camera_id == camera_id)}
        broken = breaks([run for run, _ in runs[camera_id]])
        for run, signature in runs[camera_id]:
            segments = sorted((one for one in left if belongs(one, run)), key=Item.of)
            left.difference_update(segments)
            if run.key_id in destroyed or (not segments and (camera_id, run.key_id) in certified):
                yield Finding(camera_id, run.key_id, run.segments, Verdict.DELETED)
                continue
            wrong = _wrong(run, signature, segments, given_up[camera_id], public=public)
            if not wrong and run in broken:
                wrong = "the chain does not go on where the run before ended"
            if not wrong and content:
                wrong = _altered(store, [one for one in segments if one.object_key not in waiting])
            verdict = Verdict.BROKEN if wrong else Verdict.WHOLE
            yield Finding(camera_id, run.key_id, run.segments, verdict, wrong)
        reach = _Reach()
        for run, _ in runs[camera_id]:
            reach.add(run)
        strange = (one for one in left if one.key_id not in destroyed and reach.has(one))
        yield from _strangers(camera_id, strange)


@dataclass(slots=True)
class _Reach:
    """How far the chain of a camera has come: what is newer came while we looked, or its run goes on."""

    last: int = -1
    end: datetime = EPOCH

    def add(self, run: Run) -> None:
        self.last, self.end = max(self.last, run.last), max(self.end, run.span.end)

    def has(self, segment: Segment) -> bool:
        """Say whether a segment must be chained: of any number, in a time of which all is. Where nothing is,
        everything is strange."""
        return self.last < 0 or segment.sequence <= self.last or segment.span.end <= self.end


def sample(
    records: Callable[[], Iterable[Record]],
    store: SegmentStore,
    *,
    public: str,
    settled: Callable[[CameraId, KeyId], bool],
    open_runs: Sequence[Mapping[str, Json]] = (),
    pending: Callable[[], Iterable[Segment]] = tuple,
    size: int = 10,
    chance: Random | None = None,
) -> Iterator[Finding]:
    """Yield findings for ``size`` hours of cameras that were chained last and ``size`` others by ``chance``,
    of those that are ``settled``: nothing of them comes or goes any more.

    Reads ``records`` twice and asks for one listing an hour, however much is stored. No object is read. What
    is ``pending`` is asked for in between: a recorder may go on.
    """
    chosen, reach = _chosen(records(), settled, size=size, chance=chance or SystemRandom())
    runs, given_up, _ = _from_ledger(one for one in records() if _hour_of(one) in chosen)
    for fields in open_runs:
        reach[CameraId(str(fields["camera_id"]))].add(_run_of(fields))
        _collect(fields, runs)
    waiting = [*pending()]
    for camera_id, key_id in sorted(chosen, key=str):
        left = {*_of_hour(store, camera_id, key_id)}
        left.update(one for one in waiting if (one.camera_id, one.key_id) == (camera_id, key_id))
        count, wrong = len(left), ""
        for run, signature in runs[camera_id]:
            if run.key_id == key_id:
                own = [one for one in left if belongs(one, run)]
                left.difference_update(own)
                wrong = wrong or _wrong(run, signature, own, given_up[camera_id], public=public)
        if not wrong and (strange := [one for one in left if reach[camera_id].has(one)]):
            wrong = _unchained(len(strange))
        yield Finding(camera_id, key_id, count, Verdict.BROKEN if wrong else Verdict.WHOLE, wrong)


def _chosen(
    records: Iterable[Record], settled: Callable[[CameraId, KeyId], bool], *, size: int, chance: Random
) -> tuple[set[tuple[CameraId, KeyId]], dict[CameraId, _Reach]]:
    newest: deque[tuple[CameraId, KeyId]] = deque(maxlen=size)
    others: list[tuple[CameraId, KeyId]] = []
    reach: dict[CameraId, _Reach] = defaultdict(_Reach)
    seen = 0
    for record in records:
        if record.event is not Event.SEGMENTS_CHAINED:
            continue
        run = _run_of(record.body)
        reach[run.camera_id].add(run)
        if not settled(run.camera_id, run.key_id):
            continue
        newest.append((run.camera_id, run.key_id))
        seen += 1
        place = chance.randrange(seen)  # each has the same chance to be among the others
        if len(others) < size:
            others.append(newest[-1])
        elif place < size:
            others[place] = newest[-1]
    return {*newest, *others}, reach


def _hour_of(record: Record) -> tuple[CameraId, KeyId]:
    return CameraId(str(record.body["camera_id"])), KeyId.parse(str(record.body["key_id"]))


def _of_hour(store: SegmentStore, camera_id: CameraId, key_id: KeyId) -> Iterator[Segment]:
    first, last = key_id.start, key_id.next.start - MICROSECOND
    common = commonprefix([f"{at:%Y%m%dT%H%M%S}" for at in (first, last)])  # noqa: RUF071 - ends anywhere
    for day in sorted({first.date(), last.date()}):
        for entry in store.objects(f"{day_prefix(day, key_id.keep)}{camera_id}/{common}"):
            with suppress(ValueError):
                segment = Segment.from_object_key(entry.key, size_bytes=entry.size_bytes)
                if segment.key_id == key_id:
                    yield segment


def _wrong(
    run: Run,
    signature: str,
    segments: Iterable[Segment],
    given_up: Iterable[tuple[KeyId, Item]],
    *,
    public: str,
) -> str:
    """Say what is wrong with a run and what is left of it; empty if nothing is."""
    if not signing.verify(run.to_json(), signature, public=public, context=CONTEXT):
        return "the recorder did not sign this"
    lost = [item for key_id, item in given_up if key_id == run.key_id and _in(item, run)]
    return problem(run, sorted({*map(Item.of, segments), *lost}))


def _unchained(count: int) -> str:
    return f"{count} segments are there that no recorder chained"


def _strangers(camera_id: CameraId, segments: Iterable[Segment]) -> Iterator[Finding]:
    for key_id, count in sorted(Counter(segment.key_id for segment in segments).items()):
        yield Finding(camera_id, key_id, count, Verdict.BROKEN, _unchained(count))


def _from_ledger(
    records: Iterable[Record],
) -> tuple[
    dict[CameraId, list[tuple[Run, str]]],
    dict[CameraId, list[tuple[KeyId, Item]]],
    set[tuple[CameraId, KeyId]],
]:
    runs: dict[CameraId, list[tuple[Run, str]]] = defaultdict(list)
    given_up: dict[CameraId, list[tuple[KeyId, Item]]] = defaultdict(list)
    certified: set[tuple[CameraId, KeyId]] = set()
    for record in records:
        if record.event is Event.SEGMENTS_CHAINED:
            _collect(record.body, runs)
        elif record.event is Event.CERTIFICATE:
            certified.add((CameraId(str(record.body["camera_id"])), KeyId.parse(str(record.body["key_id"]))))
        elif record.event is Event.SEGMENT_GIVEN_UP:
            body = record.body
            item = Item(
                int(str(body["sequence"])),
                datetime.fromisoformat(str(body["start"])),
                Sha256Hex(str(body["digest"])),
            )
            given_up[CameraId(str(body["camera_id"]))].append((KeyId.parse(str(body["key_id"])), item))
    return runs, given_up, certified


def _collect(fields: Mapping[str, Json], runs: dict[CameraId, list[tuple[Run, str]]]) -> None:
    """Add a run. Handed over twice it counts once, and as it was last: it may have gone on meanwhile."""
    run = _run_of(fields)
    own, entry = runs[run.camera_id], (run, str(fields.get("signature", "")))
    for place, (known, _) in enumerate(own):
        if (known.key_id, known.first, known.before) == (run.key_id, run.first, run.before):
            own[place] = entry if run.segments > known.segments else own[place]
            return
    own.append(entry)


def _run_of(fields: Mapping[str, Json]) -> Run:
    try:
        return Run.from_json(fields)
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerBroken(
            f"a run of the chain cannot be read: {error}", hint="Update videostore."
        ) from error


def cameras_in(store: SegmentStore) -> set[CameraId]:
    """Return the cameras that have objects in the store."""
    found = set()
    for day in store.prefixes(SEGMENTS):
        for prefix in store.prefixes(day):
            with suppress(ValueError):
                found.add(CameraId(prefix.removeprefix(day).rstrip("/")))
    return found


def _stored(store: SegmentStore, camera_id: CameraId) -> Iterator[Segment]:
    for day in store.prefixes(SEGMENTS):
        for entry in store.objects(f"{day}{camera_id}/"):
            with suppress(ValueError):
                yield Segment.from_object_key(entry.key, size_bytes=entry.size_bytes)


def _in(item: Item, run: Run) -> bool:
    return run.first <= item.sequence <= run.last and run.span.start <= item.start < run.span.end


def _altered(store: SegmentStore, segments: Sequence[Segment]) -> str:
    wrong = 0
    for segment in segments:
        try:
            body = store.get(segment.object_key)
        except ObjectMissing:
            wrong += 1
        else:
            wrong += hashlib.sha256(body).hexdigest() != segment.sha256
    return f"the bytes of {wrong} of {len(segments)} segments are not what was recorded" if wrong else ""
