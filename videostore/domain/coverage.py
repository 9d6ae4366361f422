"""What became of every second of a camera: footage, a gap with its reason, deleted with a certificate, …

Pure. The answer has no holes: what nothing explains is said to be unexplained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from videostore.domain.segment import Span

JITTER = timedelta(milliseconds=100)
"""A hole up to this between two explained stretches is none: clocks are followed in small steps."""

NOT_YET = "not yet"
"""The detail of what was not recorded since a camera was added, until a recorder began with it."""


class State(StrEnum):
    """What a stretch of time is, for one camera. Of several that apply, the first of this list counts."""

    FUTURE = "future"
    DAMAGED = "damaged"
    FOOTAGE = "footage"
    DELETED = "deleted"
    EXPIRED = "expired"
    NOT_RECORDED = "not-recorded"
    GAP = "gap"
    OPEN = "open"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A span in one state. ``detail`` is a gap's reason, a certificate's id, or empty."""

    span: Span
    state: State
    detail: str = ""


def damaged(footage: Iterable[Stretch], losses: Iterable[Stretch]) -> list[Stretch]:
    """Return where footage is damaged: there is footage, and packets of it were lost."""
    held = list(footage)
    parts = ((one.span.intersection(loss.span), loss.detail) for loss in losses for one in held)
    return [Stretch(span, State.DAMAGED, detail) for span, detail in parts if span is not None]


def explain(span: Span, facts: Iterable[Stretch]) -> list[Stretch]:
    """Return ``span`` divided without holes or overlaps, in order. ``facts`` may overlap, in any order."""
    clipped = [
        replace(fact, span=part) for fact in facts if (part := fact.span.intersection(span)) is not None
    ]
    free, claimed = [span], []
    for state in State:
        layer = sorted((fact for fact in clipped if fact.state is state), key=lambda fact: fact.span)
        taken, free = _claim(free, layer)
        claimed += taken
    claimed += [Stretch(rest, State.UNEXPLAINED) for rest in free]
    return _merged(sorted(claimed, key=lambda one: one.span))


def total(stretches: Iterable[Stretch]) -> dict[str, timedelta]:
    """Return how long each state lasted; states that do not occur are left out."""
    sums: dict[str, timedelta] = {}
    for one in stretches:
        sums[one.state.value] = sums.get(one.state.value, timedelta(0)) + one.span.duration
    return sums


def _claim(free: Sequence[Span], layer: Sequence[Stretch]) -> tuple[list[Stretch], list[Span]]:
    """Give the free parts to the facts of one layer, the earlier first. Linear in both."""
    taken: list[Stretch] = []
    rest: list[Span] = []
    index = 0
    for hole in free:
        at: datetime = hole.start
        while index < len(layer) and layer[index].span.end <= at:
            index += 1
        look = index
        while look < len(layer) and layer[look].span.start < hole.end and at < hole.end:
            fact = layer[look]
            start, end = max(at, fact.span.start), min(hole.end, fact.span.end)
            if start < end:
                if at < start:
                    rest.append(Span(at, start))
                taken.append(replace(fact, span=Span(start, end)))
                at = end
            look += 1
        if at < hole.end:
            rest.append(Span(at, hole.end))
    return taken, rest


def _merged(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Join neighbours of one state and detail; a hole of jitter goes to what stands before it."""
    merged: list[Stretch] = []
    for place, one in enumerate(stretches):
        before = merged[-1] if merged else None
        last = place + 1 == len(stretches)
        jitter = one.state is State.UNEXPLAINED and one.span.duration <= JITTER
        if jitter and before is not None and not last:
            one = replace(before, span=one.span)
        if before is not None and (before.state, before.detail) == (one.state, one.detail):
            merged[-1] = replace(before, span=Span(before.span.start, one.span.end))
        else:
            merged.append(one)
    return merged
