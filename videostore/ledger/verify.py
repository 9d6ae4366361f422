"""Verification from nothing but the files and the public key, for somebody who believes nothing.

What it can show: no record was altered, inserted, reordered, taken out of the middle, or cut off before
the newest checkpoint. What no file can show by itself: that records *after* the newest checkpoint in
your hands were not cut off, or the whole history exchanged by who has the key. So keep checkpoints where
the site cannot reach them, and give them here as ``outside``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from videostore.domain.errors import LedgerError
from videostore.domain.ledger import CHECKPOINT_CONTEXT, GENESIS, Checkpoint, Json, not_following
from videostore.domain.merkle import Tree
from videostore.domain.segment import Sha256Hex
from videostore.ledger.examine import AT_ONCE, Examined, examined
from videostore.ledger.lines import CHECKPOINTS, RECORDS, read_checkpoints
from videostore.signing import verify as signed

_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Report:
    """What verification found; ``problems`` is empty if all holds, and names at most a hundred. ``covered``
    is the number of records that the newest valid checkpoint pins, ``covered_outside`` that an outside one
    does, ``torn_bytes`` what a power cut left of a record that nobody was told of."""

    records: int
    head: Sha256Hex
    root: Sha256Hex
    first_at: str | None
    last_at: str | None
    checkpoints: int
    covered: int
    covered_outside: int
    torn_bytes: int
    problems: Sequence[str]

    def to_json(self) -> dict[str, Json]:
        return {
            "records": self.records,
            "head": self.head,
            "root": self.root,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "checkpoints": self.checkpoints,
            "covered_by_checkpoint": self.covered,
            "covered_by_outside_checkpoint": self.covered_outside,
            "torn_bytes": self.torn_bytes,
        }


class _Pins:
    """Checkpoints in the order of their sizes, each compared when the ledger has come so far."""

    def __init__(
        self, checkpoints: Iterable[Checkpoint | None], name: str, public: str, problems: list[str]
    ) -> None:
        self._checkpoints = self._valid(checkpoints, public)
        self._name, self._problems = name, problems
        self.count = self.covered = 0
        self._next = next(self._checkpoints, None)

    def _valid(self, checkpoints: Iterable[Checkpoint | None], public: str) -> Iterator[Checkpoint]:
        size = 0
        for number, one in enumerate(checkpoints, start=1):
            if one is None or not signed(
                one.signed_fields(), one.signature, public=public, context=CHECKPOINT_CONTEXT
            ):
                self._problems.append(f"{self._name} {number} is not signed by {public}")
            elif one.size < size:
                self._problems.append(f"{self._name} {number} pins fewer records than the one before it")
            else:
                self.count, size = self.count + 1, one.size
                yield one

    def compare(self, size: int, head: bytes, tree: Tree) -> None:
        while (pin := self._next) is not None and pin.size == size:
            if (pin.head, pin.root) == (head.hex(), tree.root.hex()):
                self.covered = size
            else:
                self._problems.append(
                    f"{self._name} pins {size} records; the ledger has others: it was forked"
                )
            self._next = next(self._checkpoints, None)

    def finish(self, size: int) -> None:
        """What pins more records than there are shows a lost tail."""
        if self._next:
            self._problems.append(
                f"{self._name} pins {self._next.size} records; the ledger has {size}: its tail is gone"
            )


class _Walk:
    """The ledger as far as it was read: one record after the other, each compared with what pins it."""

    def __init__(self, pins: Sequence[_Pins]) -> None:
        self._pins = pins
        self.head, self.end, self.tree = GENESIS, 0, Tree()
        self.first_at: str | None = None
        self.last_at: str | None = None
        for one in pins:
            one.compare(0, bytes.fromhex(GENESIS), self.tree)

    def follow(self, batch: Examined) -> None:
        """Go on with ``batch``. Raises LedgerBroken if it does not follow what was read before."""
        if not batch.leaves:
            return
        if batch.previous != self.head:
            raise not_following(self.tree.size)
        for leaf in batch.leaves:
            self.tree.add(leaf)
            for pins in self._pins:
                pins.compare(self.tree.size, leaf, self.tree)
        self.head, self.end = Sha256Hex(batch.leaves[-1].hex()), batch.end
        self.first_at, self.last_at = self.first_at or batch.first_at, batch.last_at


def verify(
    directory: Path,
    *,
    public_key: str,
    outside: Sequence[Checkpoint] = (),
    processes: int | None = None,
    at_once: int = AT_ONCE,
) -> Report:
    """Verify the ledger in ``directory`` against ``public_key`` and the checkpoints kept elsewhere.

    Memory does not grow with its length. A long one is shared by several ``processes``, ``at_once`` records
    for each; what is found does not depend on how many.
    """
    problems: list[str] = []
    own = _Pins(read_checkpoints(directory / CHECKPOINTS), "checkpoint", public_key, problems)
    kept = sorted(outside, key=lambda one: one.size)
    others = _Pins(kept, "outside checkpoint", public_key, problems)
    walk = _Walk((own, others))
    batches = examined(directory / RECORDS, public_key, processes=processes, at_once=at_once)
    try:
        with closing(batches):
            for batch in batches:
                walk.follow(batch)
                wrong = [f"record {number} is not signed by {public_key}" for number in batch.unsigned]
                problems += wrong[: max(0, _SHOWN - len(problems))]
                if batch.problem:
                    problems.append(batch.problem)
                    break
    except LedgerError as error:
        problems.append(str(error))
    tree, end = walk.tree, walk.end
    for pins in (own, others):
        pins.finish(tree.size)
    torn = (directory / RECORDS).stat().st_size - end if (directory / RECORDS).exists() else 0
    if tree.size == 0 and not problems:
        problems.append("there are no records: a site's first record is written when it is made")
    return Report(
        records=tree.size,
        head=walk.head,
        root=Sha256Hex(tree.root.hex()),
        first_at=walk.first_at,
        last_at=walk.last_at,
        checkpoints=own.count,
        covered=own.covered,
        covered_outside=others.covered,
        torn_bytes=0 if problems else torn,
        problems=problems,
    )
