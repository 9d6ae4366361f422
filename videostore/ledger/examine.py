"""Lines of a ledger examined by themselves, a batch at a time, so that several processes can share them.

A batch is checked for all that its lines can tell: form, numbers, links between them, signatures. Whether it
follows the batch before it is for who puts them together, in order (``verify``).
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from videostore.domain.errors import LedgerError
from videostore.domain.ledger import RECORD_CONTEXT, check_link
from videostore.domain.segment import Sha256Hex
from videostore.ledger.lines import parse, raw_lines
from videostore.signing import verify_canonical

AT_ONCE = 4096
_WORTH_IT_BYTES = 64 << 20
"""Below this one process is done before others have started."""


@dataclass(slots=True)
class Examined:
    """``previous`` is what the first record names as the one before it. ``leaves`` are those of the records
    up to the ``problem``, if there is one, ``end`` is the offset after them, and ``unsigned`` are the numbers
    of those that the key did not sign."""

    previous: Sha256Hex | None = None
    leaves: list[bytes] = field(default_factory=list)
    end: int = 0
    unsigned: list[int] = field(default_factory=list)
    first_at: str | None = None
    last_at: str | None = None
    problem: str = ""


def examine(lines: Sequence[bytes], first: int, start: int, public_key: str) -> Examined:
    """Examine ``lines``, which begin with record ``first`` at the offset ``start``."""
    found = Examined(end=start)
    head: Sha256Hex | None = None
    try:
        for number, raw in enumerate(lines, start=first):
            line = parse(raw, found.end + len(raw) + 1)
            record = line.record
            check_link(record, previous=head or record.previous, sequence=number)
            if not verify_canonical(line.data, line.signature, public=public_key, context=RECORD_CONTEXT):
                found.unsigned.append(number)
            leaf = line.leaf
            found.leaves.append(leaf)
            head, found.end, found.last_at = Sha256Hex(leaf.hex()), line.end, record.at.isoformat()
            found.previous, found.first_at = (
                found.previous or record.previous,
                found.first_at or found.last_at,
            )
    except LedgerError as error:
        found.problem = str(error)
    return found


def examined(path: Path, public_key: str, *, processes: int | None, at_once: int) -> Generator[Examined]:
    """Yield what is found in each batch of a records file, in order. ``processes``: None for as many as there
    are processors, if the file is long. No more batches are in memory than keep them busy."""
    batches = _batches(path, at_once)
    if processes is None:
        long = path.exists() and path.stat().st_size > _WORTH_IT_BYTES
        processes = len(os.sched_getaffinity(0)) if long else 1
    if processes == 1:
        yield from (examine(*batch, public_key) for batch in batches)
        return
    waiting: deque[Future[Examined]] = deque()
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        for batch in batches:
            waiting.append(pool.submit(examine, *batch, public_key))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(path: Path, at_once: int) -> Iterator[tuple[list[bytes], int, int]]:
    lines: list[bytes] = []
    first = start = 0
    for raw, end in raw_lines(path, 0):
        lines.append(raw)
        if len(lines) == at_once:
            yield lines, first, start
            lines, first, start = [], first + at_once, end
    if lines:
        yield lines, first, start
