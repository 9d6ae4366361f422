"""What a check is asked of, and what an answer is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from videostore.domain.errors import VideostoreError
from videostore.domain.ledger import Json
from videostore.domain.retention import Kind, RetentionPolicy
from videostore.domain.segment import Segment
from videostore.ports import Catalogue, Clock, Holding, Keyring, Ledger, SegmentStore

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer. ``invariant`` is its number, ``evidence`` names at most a few of what offends.

    ``holds`` is None where nobody can say from here: evidence is kept elsewhere, and was not read.
    """

    invariant: int
    question: str
    holds: bool | None
    answer: str
    evidence: Sequence[str] = ()

    def to_json(self) -> dict[str, Json]:
        return {
            "invariant": self.invariant,
            "question": self.question,
            "holds": self.holds,
            "answer": self.answer,
            "evidence": list(self.evidence),
        }


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked. ``verify_ledger`` returns the problems found and what it looked at, ``unread`` why
    places that keep checkpoints could not be read, ``store_breaches`` what somebody set in the store that
    breaks a promise, ``recorder`` is the public key of who signs the chain, ``open_runs`` and ``pending``
    are what a recorder on this host has not handed over yet."""

    policies: Mapping[Kind, RetentionPolicy]
    keyrings: Mapping[Kind, Keyring]
    holdings: Mapping[Kind, Sequence[Holding]]
    clock: Clock
    store: SegmentStore
    catalogue: Catalogue
    ledger: Ledger
    verify_ledger: Callable[[], tuple[Sequence[str], str]]
    unread: Callable[[], Mapping[str, VideostoreError]] = dict
    private_files: Sequence[Path] = ()
    store_breaches: Callable[[], Sequence[str]] = lambda: ()
    recorder: Callable[[], str] = str
    open_runs: Callable[[], Sequence[Mapping[str, Json]]] = tuple
    pending: Callable[[], Sequence[Segment]] = tuple


def finding_of(invariant: int, question: str, offending: Sequence[str], good: str, bad: str) -> Finding:
    """Answer by what offends: it holds if nothing does."""
    if not offending:
        return Finding(invariant, question, True, good)
    return Finding(invariant, question, False, f"{len(offending)} {bad}", list(offending[:_SHOWN]))
