"""One certificate of deletion, checked by somebody who does not believe it."""

from __future__ import annotations

from datetime import datetime

from videostore.check.subject import Subject
from videostore.domain.errors import LedgerBroken, PromiseBroken, RequestInvalid
from videostore.domain.ledger import Event, Json, Record
from videostore.domain.retention import Kind
from videostore.domain.segment import SEGMENTS, KeyId, Segment, Span


def verify_certificate(subject: Subject, certificate_id: str) -> dict[str, Json]:
    """Return the certificate if it stands in a ledger that verifies, no living key can open what it
    names, and a listing of the whole store shows nothing of it.

    Raises RequestInvalid if there is no such certificate, LedgerBroken or PromiseBroken.
    """
    problems, _ = subject.verify_ledger()
    if problems:
        raise LedgerBroken(
            f"the ledger does not verify: {problems[0]}", hint="Run `videostore ledger verify` for all of it."
        )
    record = _find(subject, certificate_id)
    key_id = KeyId.parse(str(record.body["key_id"]))
    camera = str(record.body["camera_id"])
    # A camera that was kept for less leaves the key of the others, which lives to its own deadline.
    ended, now = record.body.get("key_destroyed_at") is not None, subject.clock.read().latest
    living = [
        key
        for key in subject.keyrings[Kind.VIDEO].keys()
        if key.key_id == key_id and key.destroyed_at is None and (ended or now >= key.deadline)
    ]
    if living:
        raise PromiseBroken(
            f"the key of {key_id} is not destroyed",
            hint="Run `videostore retention sweep` and read its errors.",
        )
    span = _span(record)
    left = [key for key in _objects(subject, camera) if is_covered(key, key_id, span)]
    if left:
        raise PromiseBroken(
            f"{len(left)} objects of {camera} in {key_id} are still in the store, first: {left[0]}",
            hint="Run `videostore retention sweep`; their key is destroyed, so nobody can open them.",
        )
    return {"sequence": record.sequence, **record.body}


def _find(subject: Subject, certificate_id: str) -> Record:
    for record in subject.ledger.records():
        if record.event is Event.CERTIFICATE and record.body.get("id") == certificate_id:
            return record
    raise RequestInvalid(
        f"the ledger has no certificate {certificate_id!r}",
        hint="`videostore retention certificates list` has them.",
    )


def _span(record: Record) -> Span:
    match record.body["span"]:
        case [str(start), str(end)]:
            return Span(datetime.fromisoformat(start), datetime.fromisoformat(end))
        case other:
            raise LedgerBroken(f"record {record.sequence} has no span: {other!r}")


def _objects(subject: Subject, camera: str) -> list[str]:
    return [
        found.key
        for day in subject.store.prefixes(SEGMENTS)
        for found in subject.store.objects(f"{day}{camera}/")
    ]


def is_covered(key: str, key_id: KeyId, span: Span) -> bool:
    """Say whether an object is one that a certificate of ``key_id`` and ``span`` says is gone: sealed to that
    key, or begun within both under another. One that begins a moment before ``span`` ends, in the next
    key period, is none: segments may overlap by what the first frame after a connection was late."""
    try:
        segment = Segment.from_object_key(key, size_bytes=0)
    except ValueError:
        return False
    begun = segment.span.start
    within_both = max(span.start, key_id.span.start) <= begun < min(span.end, key_id.span.end)
    return segment.key_id == key_id or within_both
