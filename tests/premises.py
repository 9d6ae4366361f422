"""A site without processes: real keyrings and ledger; store, catalogue and clock under the test's hand."""

from __future__ import annotations

import copy
import shutil
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from tests.fakes.catalogue import MemoryCatalogue
from tests.fakes.clock import SettableClock
from tests.fakes.segment_store import MemorySegmentStore
from videostore.domain.retention import Kind, RetentionPolicy
from videostore.domain.segment import Span
from videostore.keyring.files import FileKeyring, PublishedKeys
from videostore.keyring.master import MasterKeyFile
from videostore.ledger.files import FileLedger
from videostore.presence.register import PresenceHolding, PresenceReader, PresenceRegister
from videostore.recorder.spool import Spool, facts_of
from videostore.retention.pace import Pace
from videostore.retention.policies import PoliciesOnRecord
from videostore.retention.sweep import Keys, Sweep
from videostore.sealing import seal
from videostore.signing import SigningKey

START = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=count) for count in (1, 60, 3600, 86400))
LOBBY = uuid4()


def ledger_in(root):
    """Return a ledger of its own, in ``root``."""
    key = SigningKey.create(root / "ledger.key")
    return FileLedger(root / "ledger", key=key, clock=SettableClock(START))


class Premises:
    """``keep`` 30 days and 24 hours, hour keys, a quarter of an hour of lead. ``policies`` are what the files
    say, ``in_force()`` what is judged by."""

    def __init__(self, root):
        self.root = root
        self.clock = SettableClock(START)
        self.store, self.catalogue = MemorySegmentStore(), MemoryCatalogue()
        self.policies = {
            Kind.VIDEO: RetentionPolicy(Kind.VIDEO, 30 * DAY, 15 * MINUTE, HOUR),
            Kind.ENTRY_EXIT: RetentionPolicy(Kind.ENTRY_EXIT, 24 * HOUR, 15 * MINUTE, HOUR),
        }
        self.master = MasterKeyFile(root / "master.key")
        self.master.renew()
        self.key = SigningKey.create(root / "ledger.key")
        self.spool = Spool(root / "spool")
        self.open()

    def copy(self, root):
        """Return premises in the same state, in ``root``."""
        shutil.copytree(self.root, root)
        other = copy.copy(self)
        other.root = root
        other.clock, other.store = copy.copy(self.clock), copy.deepcopy(self.store)
        other.catalogue, other.policies = copy.deepcopy(self.catalogue), dict(self.policies)
        other.master, other.spool = MasterKeyFile(root / "master.key"), Spool(root / "spool")
        other.open()
        return other

    def open(self):
        """Build what a process builds when it starts."""
        self.ledger = FileLedger(self.root / "ledger", key=self.key, clock=self.clock)
        self.in_force = PoliciesOnRecord(lambda: self.policies, ledger=lambda: self.ledger, clock=self.clock)
        self.keyrings = {kind: self._keyring(kind) for kind in Kind}

    def _keyring(self, kind):
        return FileKeyring(
            self.root / kind.value,
            master_key=self.master,
            signing_key=self.key,
            policy=lambda: self.in_force()[kind],
            clock=self.clock,
            ahead=3 * HOUR,
        )

    def published(self, kind=Kind.VIDEO):
        return PublishedKeys(
            self.root / kind.value,
            signed_by=self.key.public,
            policy=lambda: self.in_force()[kind],
            clock=self.clock,
        )

    def register(self):
        keys = self.published(Kind.ENTRY_EXIT)
        return PresenceRegister(self.store, keys, key_period=HOUR, clock=self.clock)

    def reader(self):
        return PresenceReader(self.store, self.keyrings[Kind.ENTRY_EXIT])

    def sweep(self, **ports):
        """Return a sweep. ``ports`` replace those of these premises."""
        holdings = {Kind.VIDEO: [self.spool], Kind.ENTRY_EXIT: [PresenceHolding(self.store)]}
        keyrings = ports.pop("keyrings", self.keyrings)
        video, entry_exit = (
            Keys(lambda kind=kind: self.in_force()[kind], keyrings[kind], holdings[kind]) for kind in Kind
        )
        own = {name: getattr(self, name) for name in ("clock", "store", "catalogue", "ledger")}
        own["pace"] = Pace(float("inf"))
        own["bookmark"] = self.root / "retention.json"
        return Sweep(video=video, entry_exit=entry_exit, **{**own, **ports})

    def record(
        self, number=0, *, camera=LOBBY, movie=b"a movie", start=START, length=10 * SECOND, known=True
    ):
        """Store a sealed segment, ``number`` lengths after ``start``, in the catalogue if ``known``."""
        span = Span(start + number * length, start + (number + 1) * length)
        key_id = self.policies[Kind.VIDEO].key_id(camera, span.start)
        sealed = seal(movie, recipient=self.published().recipient(key_id))
        segment = facts_of(sealed, camera_id=camera, span=span, sequence=number, key_id=key_id)
        self.store.put(segment.object_key, sealed, sha256=segment.sha256)
        if known:
            self.catalogue.add(segment)
        return segment

    def events(self, event):
        return [record.body for record in self.ledger.records() if record.event is event]
