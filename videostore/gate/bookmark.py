"""Bookmarks in the ledger: what somebody made of its first records, signed, so that a start reads the rest.

A file: a line of canonical JSON (which record was the last, its hash, which program made what follows, and
the SHA-256 of that) with a signature by the ledger's key; then the state, as JSON. Who cannot sign records
cannot make one, and an old one put back is harmless: everything since is read from the ledger, and verified.
What stands before it is not verified again here; `videostore check` and `videostore ledger verify` do.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from videostore import telemetry
from videostore.domain.errors import DiskError, LedgerBroken
from videostore.domain.ledger import Json, Record, canonical
from videostore.durable import write_file
from videostore.ports import Ledger
from videostore.signing import SigningKey, verify

EVERY = 50_000
"""Records between two bookmarks: what a start after a power cut reads, in seconds."""
_CONTEXT = "ledger bookmark"
State = TypeVar("State")
log = telemetry.logger("gate")


class Bookmark(Generic[State]):
    """Where the state ``kind`` is kept, and by which key it is signed. ``rules`` are the modules that make it
    out of records: what others made, of another version, is not believed."""

    def __init__(
        self, path: Path, kind: type[State], *, key: SigningKey, rules: Sequence[ModuleType]
    ) -> None:
        self._path = path
        self._states: TypeAdapter[State] = TypeAdapter(kind)
        self._key = key
        self._rules = rules

    def keep(self, state: State, last: Record) -> None:
        """Replace the bookmark. A disk that refuses it costs the next start time, nothing else."""
        data = self._states.dump_json(state)
        fields: dict[str, Json] = {
            "sequence": last.sequence,
            "hash": last.hash,
            "made_by": self._made_by(),
            "state_sha256": hashlib.sha256(data).hexdigest(),
        }
        signature = self._key.sign(fields, context=_CONTEXT)
        try:
            write_file(self._path, canonical({**fields, "signature": signature}) + b"\n" + data, mode=0o600)
        except DiskError as error:
            log.warning("bookmark.not-kept", error=str(error))

    def find(self, ledger: Ledger) -> tuple[State, Record] | None:
        """Return the state that was kept and the last record in it, None if there is none to believe.

        Raises LedgerBroken if the ledger does not have that record, LedgerUnavailable.
        """
        try:
            head, _, data = self._path.read_bytes().partition(b"\n")
            fields = json.loads(head)
            if why := self._doubt(fields, fields.pop("signature"), data):
                log.warning("bookmark.not-believed", path=str(self._path), error=why)
                return None
            state = self._states.validate_json(data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("bookmark.not-believed", path=str(self._path), error=str(error))
            return None
        last = next(ledger.records(after=fields["sequence"] - 1), None)
        if last is None or last.hash != fields["hash"]:
            raise LedgerBroken(
                f"the ledger does not have the record {fields['sequence']} that {self._path} was made from",
                hint="Records were taken away or exchanged: keep the files. If `videostore ledger verify "
                f"--against` an outside checkpoint finds nothing, remove {self._path.name}; it is made anew.",
            )
        return state, last

    def _doubt(self, fields: dict[str, Any], signature: str, data: bytes) -> str:
        """Return why these are not believed; empty if they are."""
        signed = verify(fields, signature, public=self._key.public, context=_CONTEXT)
        if not signed or fields["state_sha256"] != hashlib.sha256(data).hexdigest():
            return "it is not signed by the ledger's key"
        return "" if fields["made_by"] == self._made_by() else "another version made it"

    def _made_by(self) -> str:
        sources = (inspect.getsource(module) for module in self._rules)
        return hashlib.sha256("\0".join(sources).encode()).hexdigest()


class Reader(Generic[State]):
    """Reads a ledger from the bookmark on, once. ``state`` is for whom the records are; who follows the
    ledger from several threads locks."""

    def __init__(self, ledger: Ledger, state: State, bookmark: Bookmark[State] | None) -> None:
        self.state = state
        self._ledger = ledger
        self._bookmark = bookmark
        self._last: Record | None = None
        self._kept = -1

    def new(self) -> Iterator[Record]:
        """Yield what was recorded since; each counts as read when the next one is asked for.

        Raises LedgerBroken or LedgerUnavailable.
        """
        if self._last is None and self._bookmark and (found := self._bookmark.find(self._ledger)):
            self.state, self._last = found
            self._kept = self._last.sequence
        for record in self._ledger.records(after=self._last.sequence if self._last else -1):
            yield record
            self._last = record
            if record.sequence - self._kept >= EVERY:
                self.keep()

    def keep(self) -> None:
        """Put the bookmark after the last record that was read."""
        if self._bookmark and self._last and self._last.sequence > self._kept:
            self._bookmark.keep(self.state, self._last)
            self._kept = self._last.sequence
