"""What the ledger says of hour keys: which were made, and when those that are gone went. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from videostore.domain.ledger import Event, Record
from videostore.domain.retention import Kind
from videostore.domain.segment import KeyId

EVENTS = (Event.KEY_CREATED, Event.KEY_DESTROYED, Event.SITE_RECONCILED)


@dataclass(slots=True)
class KeysOnRecord:
    """``living`` were made, for the recipient named, and nothing is said of their end. ``gone`` were
    destroyed, or lost with their host, which is found when a site is reconciled. One made anew under the name
    of a lost one lives."""

    living: dict[tuple[Kind, KeyId], str] = field(default_factory=dict)
    gone: dict[tuple[Kind, KeyId], datetime] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> KeysOnRecord:
        """Fold ``records``, in order."""
        found = cls()
        for record in records:
            found.take(record)
        return found

    def take(self, record: Record) -> None:
        body: Mapping[str, Any] = record.body
        match record.event:
            case Event.KEY_CREATED:
                for key in body["keys"]:
                    name = Kind(body["kind"]), KeyId.parse(key["key_id"])
                    self.living[name] = key["recipient"]
                    self.gone.pop(name, None)
            case Event.KEY_DESTROYED:
                self._end(body["kind"], body["key_id"], datetime.fromisoformat(body["destroyed_at"]))
            case Event.SITE_RECONCILED:
                for kind, keys in body.get("keys_lost", {}).items():
                    for key_id in keys:
                        self._end(kind, key_id, record.at)
            case _:
                pass

    def _end(self, kind: str, key_id: str, at: datetime) -> None:
        name = Kind(kind), KeyId.parse(key_id)
        self.living.pop(name, None)
        self.gone[name] = at
