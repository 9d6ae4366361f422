"""What a sweep at some moment would do, without doing it. Pure: the facts come in as values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from videostore.domain.retention import Kind, RetentionPolicy, Verdict
from videostore.domain.segment import KeyId
from videostore.ports import HourKey


@dataclass(frozen=True, slots=True)
class Planned:
    """One hour key, and what happens to everything sealed to it. ``rows`` says whether footage is known."""

    kind: Kind
    key_id: KeyId
    verdict: Verdict
    rows: bool


def plan(
    policy: RetentionPolicy, *, keys: Sequence[HourKey], rows: Iterable[KeyId], moment: datetime
) -> Iterator[Planned]:
    """Yield what is due at ``moment``, oldest first: living keys, and rows whose key nobody has."""
    held = set(rows)
    promised = {key.key_id: key.deadline for key in keys if key.destroyed_at is None}
    for key_id in sorted(held | promised.keys()):
        verdict = policy.judge(key_id, now=moment, promised=promised.get(key_id))
        if verdict.due:
            yield Planned(policy.kind, key_id, verdict, key_id in held)
