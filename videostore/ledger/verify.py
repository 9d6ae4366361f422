"""Verification from nothing but the files and the public key, for somebody who believes nothing.

What it can show: no record was altered, inserted, reordered, taken out of the middle, or cut off before
the newest checkpoint. What no file can show by itself: that records *after* the newest checkpoint in
your hands were not cut off. So keep checkpoints where the site cannot reach them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from videostore.domain.errors import LedgerError
from videostore.domain.ledger import GENESIS, Json, check_link
from videostore.domain.segment import Sha256Hex
from videostore.ledger.files import CHECKPOINT_CONTEXT, CHECKPOINTS, RECORD_CONTEXT, RECORDS, read_lines
from videostore.signing import verify as signed


@dataclass(frozen=True, slots=True)
class Report:
    """What verification found; ``problems`` is empty if all holds. ``covered`` is the number of
    records that the newest valid checkpoint pins, ``torn_bytes`` what a power cut left of a record that
    nobody was told of."""

    records: int
    head: Sha256Hex
    first_at: str | None
    last_at: str | None
    checkpoints: int
    covered: int
    torn_bytes: int
    problems: Sequence[str]

    def to_json(self) -> dict[str, Json]:
        return {
            "records": self.records,
            "head": self.head,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "checkpoints": self.checkpoints,
            "covered_by_checkpoint": self.covered,
            "torn_bytes": self.torn_bytes,
        }


def verify(directory: Path, *, public_key: str) -> Report:
    """Verify the ledger in ``directory`` against ``public_key``. Memory does not grow with its length."""
    problems: list[str] = []
    heads = _checkpoints(directory / CHECKPOINTS, public_key, problems)
    wanted = {size for size, _ in heads}
    found: dict[int, Sha256Hex] = {0: GENESIS}
    size, head, end = 0, GENESIS, 0
    first_at: str | None = None
    last_at: str | None = None
    try:
        for line in read_lines(directory / RECORDS):
            record = line.record
            check_link(record, previous=head, sequence=size)
            if not signed(record.to_json(), line.signature, public=public_key, context=RECORD_CONTEXT):
                problems.append(f"record {record.sequence} is not signed by {public_key}")
            size, head, end = size + 1, record.hash, line.end
            if size in wanted:
                found[size] = head
            last_at = record.at.isoformat()
            first_at = first_at or last_at
    except LedgerError as error:
        problems.append(str(error))
    torn = (directory / RECORDS).stat().st_size - end if (directory / RECORDS).exists() else 0
    for pinned, pinned_head in heads:
        if found.get(pinned) != pinned_head:
            problems.append(f"a checkpoint pins {pinned} records; the ledger does not have them as they were")
    if size == 0 and not problems:
        problems.append("there are no records: a site's first record is written when it is made")
    covered = max((pinned for pinned, pinned_head in heads if found.get(pinned) == pinned_head), default=0)
    return Report(size, head, first_at, last_at, len(heads), covered, 0 if problems else torn, problems)


def _checkpoints(path: Path, public_key: str, problems: list[str]) -> list[tuple[int, Sha256Hex]]:
    heads: list[tuple[int, Sha256Hex]] = []
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, raw in enumerate(lines[:-1], start=1):
        try:
            document = json.loads(raw)
            signature = document.pop("signature")
            size, head = document["size"], Sha256Hex(document["head"])
            valid = signed(document, signature, public=public_key, context=CHECKPOINT_CONTEXT)
        except (ValueError, KeyError, TypeError, AttributeError):
            valid, size, head = False, -1, GENESIS
        if valid and isinstance(size, int):
            heads.append((size, head))
        else:
            problems.append(f"checkpoint {number} is not signed by {public_key}")
    return heads
