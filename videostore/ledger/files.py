"""The ledger as files that anybody can verify with a SHA-256 and an Ed25519 at hand.

``records.jsonl``: one line for each record, the canonical JSON of ``{"record": …, "signature": …}``; each
record names the hash of the one before it, and is a leaf of a Merkle tree (``domain.ledger``).
``checkpoints.jsonl``: signed heads. ``records.index`` is made from the records.

Appends from several processes are serialised by a lock file; a record is synced before ``append`` returns,
and those of threads that wait at the same time are written and synced as one. A line without its end is what
a power cut left of a record that nobody was told of: the next append cuts it off and says so in a record of
its own. No other record is ever repaired. Memory and the time to start do not grow with the ledger.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import RLock

from videostore import telemetry
from videostore.domain.errors import DiskError, LedgerBroken, LedgerUnavailable, RequestInvalid
from videostore.domain.ledger import (
    CHECKPOINT_CONTEXT,
    GENESIS,
    RECORD_CONTEXT,
    Checkpoint,
    Event,
    Json,
    Proof,
    Record,
    canonical,
    check_link,
)
from videostore.domain.merkle import Tree, consistency_proof, inclusion_proof
from videostore.domain.segment import Sha256Hex
from videostore.durable import locked
from videostore.ledger.index import LEVEL, STRIDE, Entry, Index
from videostore.ledger.lines import (
    CHECKPOINTS,
    RECORDS,
    Line,
    append_line,
    find_lines,
    read_checkpoints,
    read_lines,
    whole_lines,
)
from videostore.ports import Clock, Draft
from videostore.signing import SigningKey, verify, verify_canonical

INDEX = "records.index"
log = telemetry.logger("ledger")


@dataclass(slots=True)
class _Head:
    """How far the file was read and believed. ``block`` has the leaves since the last entry of the index."""

    size: int = 0
    hash: Sha256Hex = GENESIS
    end: int = 0
    block: Tree = field(default_factory=Tree)

    def add(self, line: Line) -> Entry | None:
        """Move on to ``line``; return the entry of the index if that completes one."""
        self.size, self.hash, self.end = self.size + 1, line.hash, line.end
        self.block.add(line.leaf)
        if self.size % STRIDE:
            return None
        entry = Entry(self.end, bytes.fromhex(self.hash), self.block.root)
        self.block = Tree()
        return entry


@dataclass(slots=True)
class _Wanted:
    """What one thread wants on record, and the records when they are durable."""

    drafts: Sequence[Draft]
    records: Sequence[Record] = ()


class FileLedger:
    """Port Ledger. Only ``append`` and ``checkpoint`` need ``key``; every record read is checked against
    its public half."""

    def __init__(self, directory: Path, *, key: SigningKey, clock: Clock) -> None:
        self._directory = directory
        self._path = directory / RECORDS
        self._index = Index(directory / INDEX)
        self._key = key
        self._clock = clock
        self._head: _Head | None = None  # as of the last append or checkpoint of this process
        # What stands before the last record read, and the file as it was then.
        self._last: tuple[tuple[int, Sha256Hex, int], tuple[int, ...]] | None = None
        self._wanted: deque[_Wanted] = deque()
        self._lock = RLock()

    def append(self, event: Event, *, actor: str, body: Mapping[str, Json]) -> Record:
        return self.append_all([(event, actor, body)])[0]

    def append_all(self, drafts: Sequence[Draft]) -> Sequence[Record]:
        """Who comes first writes for all who wait; those for whom that failed try again themselves."""
        for _, _, body in drafts:
            canonical(body)  # what has no canonical form spoils nobody else's
        mine = _Wanted(drafts)
        self._wanted.append(mine)
        with self._lock:
            if not mine.records:
                self._write_for_all(mine)
        return mine.records

    def records(self, *, after: int = -1) -> Iterator[Record]:
        last, seen = self._last or (None, ())
        goes_on = last is not None and last[0] == after
        now = _stamp(self._path)
        if goes_on and now == seen:
            return
        head = _Head(*last) if last and goes_on else self._head_at((after + 1) // STRIDE)
        for line in read_lines(self._path, start=head.end):
            last = head.size, head.hash, head.end
            self._believe(line, head)
            if line.record.sequence > after:
                yield line.record
        if goes_on and head.size <= after:
            raise _shorter(self._path)
        self._last = (last, now) if last else None

    def find(self, *events: Event) -> Iterator[Record]:
        for line in find_lines(self._path, events):
            self._check_signature(line)
            yield line.record

    @property
    def public_key(self) -> str:
        return self._key.public

    # --- proof ---

    def checkpoint(self) -> Checkpoint:
        """Sign the head as it stands now, and keep the signature beside the records."""
        with self._writing():
            head = self._catch_up()
            unsigned = Checkpoint(head.size, head.hash, Sha256Hex(self._root(head)), self._clock.now())
            signature = self._key.sign(unsigned.signed_fields(), context=CHECKPOINT_CONTEXT)
            checkpoint = unsigned.with_signature(signature)
            path = self._directory / CHECKPOINTS
            append_line(path, canonical(checkpoint.to_json()), at=whole_lines(path))
            return checkpoint

    def prove(self, sequence: int) -> Proof:
        """Return the proof that record ``sequence`` stands in the ledger, under the newest checkpoint that
        covers it, or a new one. Raises RequestInvalid if there is no such record."""
        line = next(self._lines(sequence, sequence + 1), None) if sequence >= 0 else None
        if line is None:
            raise RequestInvalid(
                f"the ledger has no record {sequence}", hint="`videostore ledger show` has their numbers."
            )
        newest = self._newest_checkpoint()
        checkpoint = newest if newest and newest.size > sequence else self.checkpoint()
        path = inclusion_proof(sequence, checkpoint.size, self._node)
        return Proof(line.record, line.signature, checkpoint, [step.hex() for step in path])

    def growth(self, first: int, second: int) -> list[str]:
        """Return the proof that the ledger of ``second`` records begins with that of ``first``.
        Raises RequestInvalid if it is not that long."""
        with self._writing():
            size = self._catch_up().size
        if not 0 <= first <= second <= size:
            raise RequestInvalid(
                f"there is no way from {first} to {second} records", hint=f"The ledger has {size}."
            )
        return [step.hex() for step in consistency_proof(first, second, self._node)]

    def signed(self, checkpoint: Checkpoint) -> bool:
        """Say whether the key of this ledger signed it."""
        fields, signature = checkpoint.signed_fields(), checkpoint.signature
        return verify(fields, signature, public=self._key.public, context=CHECKPOINT_CONTEXT)

    def holds(self, checkpoint: Checkpoint) -> bool:
        """Say whether it is of the records that are here."""
        with self._writing():
            size = self._catch_up().size
        return checkpoint.size <= size and self._node(0, checkpoint.size).hex() == checkpoint.root

    def _newest_checkpoint(self) -> Checkpoint | None:
        newest = None
        for checkpoint in read_checkpoints(self._directory / CHECKPOINTS):
            if checkpoint and self.signed(checkpoint):
                newest = checkpoint
        return newest

    def _root(self, head: _Head) -> str:
        tree = Tree()
        for entry in self._index.entries(0, head.size // STRIDE):
            tree.add(entry.root, level=LEVEL)
        for line in self._lines(tree.size, head.size):
            tree.add(line.leaf)
        return tree.root.hex()

    def _node(self, start: int, end: int) -> bytes:
        """Return the root of the records ``start`` to ``end``, which are a node of the tree."""
        tree = Tree()
        if start % STRIDE == 0:
            for entry in self._index.entries(start // STRIDE, min(end // STRIDE, self._index.count)):
                tree.add(entry.root, level=LEVEL)
        for line in self._lines(start + tree.size, end):
            tree.add(line.leaf)
        return tree.root

    def _lines(self, start: int, end: int) -> Iterator[Line]:
        head = self._head_at(start // STRIDE)
        for line in read_lines(self._path, start=head.end):
            if line.record.sequence >= end:
                return
            self._believe(line, head)
            if line.record.sequence >= start:
                yield line

    # --- reading ---

    def _head_at(self, entries: int) -> _Head:
        """Return where to begin to read, at or before the end of that many entries of the index."""
        count = min(entries, self._index.count)
        if count <= 0:
            return _Head()
        entry = self._index[count - 1]
        return _Head(count * STRIDE, Sha256Hex(entry.head.hex()), entry.end)

    def _catch_up(self) -> _Head:
        """Read what was appended since. A process that starts reads the last two blocks, and compares the
        first of them with the index."""
        count = self._index.count
        head = self._head
        if head is None or head.size // STRIDE > count:
            head = self._head_at(count - 1)
        for line in read_lines(self._path, start=head.end):
            if entry := self._believe(line, head):
                self._note(head.size // STRIDE - 1, entry)
        if head.size < count * STRIDE:
            raise LedgerBroken(
                f"{self._path} does not have the {count * STRIDE} records that {INDEX} was made from",
                hint="Records were taken away: keep the files. If `videostore ledger verify --against` an "
                f"outside checkpoint finds nothing, remove {INDEX}; it is made anew.",
            )
        self._head = head
        return head

    def _believe(self, line: Line, head: _Head) -> Entry | None:
        """Move ``head`` on to ``line``, which must follow; return the index entry that it completes."""
        check_link(line.record, previous=head.hash, sequence=head.size)
        self._check_signature(line)
        return head.add(line)

    def _note(self, number: int, entry: Entry) -> None:
        """Write an entry of the index, unless it is there. A disk that refuses it costs time, no record."""
        with suppress(DiskError):
            if number >= self._index.count or self._index[number] != entry:
                self._index.write(number, entry)

    def _check_signature(self, line: Line) -> None:
        if not _verified(line.data, line.signature, public=self._key.public, context=RECORD_CONTEXT):
            raise LedgerBroken(f"record {line.record.sequence} is not signed by this ledger's key")

    # --- writing, under both locks ---

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._lock, locked(self._directory / ".lock"):
                yield
        except (DiskError, OSError) as error:
            raise LedgerUnavailable(
                f"the ledger cannot be written: {error}",
                hint="Free the disk of the ledger; until then no footage is served.",
            ) from error

    def _write_for_all(self, mine: _Wanted) -> None:
        batch = [mine]
        with suppress(IndexError):
            while True:
                other = self._wanted.popleft()
                if other is not mine:
                    batch.append(other)
        with self._writing():
            head = self._catch_up()
            self._cut_torn_tail(head)
            written = iter(self._write(head, [draft for one in batch for draft in one.drafts]))
            for one in batch:
                one.records = [next(written) for _ in one.drafts]

    def _write(self, head: _Head, drafts: Sequence[Draft]) -> list[Record]:
        """Write records as one, and sync them once."""
        start, lines = head.end, []
        completed: list[tuple[int, Entry]] = []
        self._head = None  # it moves on before the file does; if that fails the file is read again
        for event, actor, body in drafts:
            record = Record(head.size, self._clock.now(), event, actor, dict(body), head.hash)
            data = canonical(record.to_json())
            signature = self._key.sign_canonical(data, context=RECORD_CONTEXT)
            raw = b'{"record":%s,"signature":%s}' % (data, canonical(signature))
            lines.append((raw, record))
            if entry := head.add(Line(record, data, signature, head.end + len(raw) + 1)):
                completed.append((head.size // STRIDE - 1, entry))
        append_line(self._path, b"\n".join(raw for raw, _ in lines), at=start)
        self._head = head
        for number, entry in completed:
            self._note(number, entry)
        telemetry.LEDGER_RECORDS.set(head.size)
        return [record for _, record in lines]

    def _cut_torn_tail(self, head: _Head) -> None:
        """Remove the beginning of a record whose writer died, and say so."""
        torn = (self._path.stat().st_size if self._path.exists() else 0) - head.end
        if torn < 0:
            raise _shorter(self._path)
        if torn:
            os.truncate(self._path, head.end)
            log.warning("ledger.tail-repaired", torn_bytes=torn)
            self._write(head, [(Event.TAIL_REPAIRED, "ledger", {"torn_bytes": torn})])


_verified = lru_cache(maxsize=512)(verify_canonical)
"""The same bytes under the same key stay signed or not; several readers follow one ledger."""


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes whenever a file is written to, or replaced."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _shorter(path: Path) -> LedgerBroken:
    return LedgerBroken(
        f"{path} is shorter than it was", hint="Records were taken away: keep the files as they are."
    )
