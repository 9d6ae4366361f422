"""Every segment against the recorder's signed chain: is one missing, exchanged, altered, or somebody else's?

Needs the ledger's records, the recorder's public key and a store to list; no key opens anything here.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from videostore import signing
from videostore.domain.camera import CameraId
from videostore.domain.chain import CONTEXT, Item, Run, belongs, breaks, problem
from videostore.domain.errors import LedgerBroken, ObjectMissing
from videostore.domain.ledger import Event, Json, Record
from videostore.domain.segment import SEGMENTS, KeyId, Segment, Sha256Hex
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
            lost = [item for key_id, item in given_up[camera_id] if key_id == run.key_id and _in(item, run)]
            wrong = problem(run, sorted({*map(Item.of, segments), *lost}))
            if not signing.verify(run.to_json(), signature, public=public, context=CONTEXT):
                wrong = "the recorder did not sign this"
            elif run in broken:
                wrong = wrong or "the chain does not go on where the run before ended"
            elif content:
                wrong = wrong or _altered(store, [one for one in segments if one.object_key not in waiting])
            verdict = Verdict.BROKEN if wrong else Verdict.WHOLE
            yield Finding(camera_id, run.key_id, run.segments, verdict, wrong)
        end = max((run.last for run, _ in runs[camera_id]), default=-1)  # what is newer came while we looked
        strange = (one for one in left if one.key_id not in destroyed and (one.sequence <= end or end < 0))
        yield from _strangers(camera_id, strange)


def _strangers(camera_id: CameraId, segments: Iterable[Segment]) -> Iterator[Finding]:
    for key_id, count in sorted(Counter(segment.key_id for segment in segments).items()):
        wrong = f"{count} segments are there that no recorder chained"
        yield Finding(camera_id, key_id, count, Verdict.BROKEN, wrong)


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
    try:
        run = Run.from_json(fields)
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerBroken(
            f"a run of the chain cannot be read: {error}", hint="Update videostore."
        ) from error
    own, entry = runs[run.camera_id], (run, str(fields.get("signature", "")))
    for place, (known, _) in enumerate(own):
        if (known.key_id, known.first, known.before) == (run.key_id, run.first, run.before):
            own[place] = entry if run.segments > known.segments else own[place]
            return
    own.append(entry)


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
