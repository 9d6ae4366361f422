"""Hour keys as files, so that destruction can be checked with ``ls``.

::

    keyring/public/<key id>.json     recipient, promised deadline, time of destruction: stays as evidence
    keyring/private/<key id>.key     the private half, wrapped by the master key; destroyed at the deadline

Key id, recipient and promised deadline are authenticated by the wrap: whoever edits a header to a later
deadline has a key that does not open. A header is signed by the key of the ledger as well, for who holds
public halves only: nobody seals to a recipient that was not made here. Private halves are never kept in
memory beyond one ``open``, so what another process destroyed is gone here too. Whatever comes back from a
copy, a header that says destroyed, a record of the ledger that says so, or the deadline itself wins:
docs/design/0016-master-key.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from videostore import telemetry
from videostore.domain.errors import ClockInDoubt, KeyDestroyed, KeyUnavailable, LedgerError, SealBroken
from videostore.domain.ledger import Json
from videostore.domain.retention import RetentionPolicy
from videostore.domain.segment import KeyId
from videostore.durable import disk_errors, erase_file, locked, make_directory, replace_secret, write_file
from videostore.ports import Clock, HourKey, MasterKey
from videostore.sealing import new_identity, open_sealed
from videostore.signing import SigningKey, verify

CONTEXT = "videostore hour key v1"

log = telemetry.logger("keyring")


class PublishedKeys:
    """Port PublicKeys, over the published headers alone: all that a recorder may read. ``signed_by`` is the
    public key of who makes them; a living key of anybody else is none."""

    def __init__(
        self, directory: Path, *, signed_by: str, policy: Callable[[], RetentionPolicy], clock: Clock
    ) -> None:
        self._public = directory / "public"
        self._signed_by = signed_by
        self._policy = policy
        self._clock = clock
        self._destroyed: dict[KeyId, HourKey] = {}  # final, so read once
        self._read: dict[KeyId, tuple[tuple[int, int], HourKey]] = {}  # as long as it is the same file
        self._told: set[KeyId] = set()

    def recipient(self, key_id: KeyId) -> str:
        key = self._header(key_id)
        if key is None:
            raise KeyUnavailable(
                f"no key is published for {key_id}",
                hint="`videostore run retention` makes keys ahead; see that it runs.",
            )
        self._refuse_past(key)
        return key.recipient

    def has(self, key_id: KeyId) -> bool:
        """Say whether a key of this name was ever published."""
        return self._header(key_id) is not None

    def keys(self) -> Iterator[HourKey]:
        with disk_errors(self._public):
            names = sorted(entry.name for entry in os.scandir(self._public)) if self._public.is_dir() else []
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                try:
                    key_id = KeyId.parse(name.removesuffix(".json"))
                except ValueError:
                    log.warning("key.stray-file", name=name)
                    continue
                if key := self._known(key_id):
                    yield key

    def _refuse_past(self, key: HourKey) -> None:
        deadline = self._policy().judge(key.key_id, now=key.deadline, promised=key.deadline).deadline
        if key.destroyed_at is not None or self._clock.read().latest >= deadline:
            raise KeyDestroyed(
                f"the key of {key.key_id} is destroyed", hint="Footage past its deadline opens for nobody."
            )

    def _known(self, key_id: KeyId) -> HourKey | None:
        """As ``_header``; but one that cannot be read holds up no other key. Its own opens nothing and has no
        recipient, and its name says when it is to be destroyed."""
        try:
            return self._header(key_id)
        except KeyUnavailable as error:
            if key_id not in self._told:
                self._told.add(key_id)
                log.error("key.unreadable", key_id=str(key_id), error=str(error), hint=error.hint)
            return HourKey(key_id, "", self._policy().deadline(key_id))

    def _header(self, key_id: KeyId) -> HourKey | None:
        if key_id in self._destroyed:
            return self._destroyed[key_id]
        path = self._public / f"{key_id}.json"
        try:
            status = path.stat()
            same, known = self._read.get(key_id, (None, None))
            if known and same == (status.st_ino, status.st_mtime_ns):
                return known
            fields = json.loads(path.read_bytes())
            key = _read(fields)
        except FileNotFoundError:
            self._read.pop(key_id, None)
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeyUnavailable(
                f"the header {path} cannot be read: {error}", hint="Restore it from a copy of keyring/public."
            ) from error
        if key.key_id != key_id or key.deadline.tzinfo is None:
            raise KeyUnavailable(f"the header {path} is that of another key", hint="Restore it from a copy.")
        if not self._believes(key, fields):
            raise KeyUnavailable(
                f"the header {path} is not signed by this site",
                hint="Find out who wrote it, and restore it from a copy of keyring/public.",
            )
        if key.destroyed_at is not None:
            self._destroyed[key_id] = key
            self._read.pop(key_id, None)
        else:
            self._read[key_id] = (status.st_ino, status.st_mtime_ns), key
        return key

    def _believes(self, key: HourKey, fields: Mapping[str, Json]) -> bool:
        """A key that is said to be destroyed is used for nothing, whoever says so."""
        return key.destroyed_at is not None or self._signed(fields)

    def _signed(self, fields: Mapping[str, Json]) -> bool:
        document = {name: value for name, value in fields.items() if name != "signature"}
        signature = str(fields.get("signature", ""))
        return verify(document, signature, public=self._signed_by, context=CONTEXT)


class FileKeyring(PublishedKeys):
    """Port Keyring. Making one destroys what is due, and what came back, before anything is served.

    ``buried`` returns the keys that the ledger says were destroyed, and when. While the ledger cannot
    be asked nothing opens; destruction goes on.
    """

    def __init__(
        self,
        directory: Path,
        *,
        master_key: MasterKey,
        signing_key: SigningKey,
        policy: Callable[[], RetentionPolicy],
        clock: Clock,
        ahead: timedelta,
        buried: Callable[[], Mapping[KeyId, datetime]] = dict,
    ) -> None:
        super().__init__(directory, signed_by=signing_key.public, policy=policy, clock=clock)
        self._signing_key = signing_key
        self._private = directory / "private"
        self._lock = directory / ".lock"
        self._master_key = master_key
        self._ahead = ahead
        self._buried = buried
        self._asked = False
        make_directory(self._public)
        make_directory(self._private, mode=0o700)
        with suppress(ClockInDoubt):  # the clock may be doubted from one reading to the next
            for key in self.due():
                self.destroy(key.key_id)
        try:
            self._bury()
        except LedgerError as error:
            log.error("keyring.ledger-not-asked", error=str(error), hint=error.hint)

    def create_ahead(self) -> list[HourKey]:
        policy, reading = self._policy(), self._clock.read()
        created: list[HourKey] = []
        with locked(self._lock):
            self._sign_older()
            self._persist_tightening(policy)
            # Never from the later reading: a wild clock gets no wild number of keys.
            until = reading.earliest + self._ahead
            for keep in policy.series:
                # From the period before: a camera's clock may lie a little behind (max_clock_offset).
                key_id = KeyId.covering(reading.earliest - policy.key_period, policy.key_period, keep)
                while key_id.start <= until:
                    if self._known(key_id) is None or self._is_strangers(key_id):
                        created.append(self._create(key_id, policy))
                    key_id = key_id.next
        return created

    def open(self, key_id: KeyId, sealed: bytes) -> bytes:
        key = self._header(key_id)
        if key is None:
            raise _never_had(key_id)
        self._refuse_past(key)
        if not self._asked:
            self._bury()
            self._refuse_past(self._header(key_id) or key)
        try:
            identity = self._unwrap(key)
        except SealBroken as error:
            raise KeyUnavailable(f"the key of {key_id} cannot be unwrapped", hint=error.hint) from error
        return open_sealed(sealed, identity=identity)

    def rewrap(self, *, older: MasterKey | None = None) -> tuple[int, list[KeyId]]:
        """Wrap every private half anew, by the newest generation of the master key; ``older`` opens what
        another one wrapped. Returns how many, and the keys that nothing opens: they stay as they are.

        Raises KeyUnavailable if a master key cannot be reached.
        """
        count, unreadable = 0, []
        with locked(self._lock):
            self._sign_older(older)
            self._persist_tightening(self._policy(), older)
            for key in self._living():
                try:
                    self._wrap(key, self._unwrap(key, older))
                    count += 1
                except KeyDestroyed:  # its header is about to say so
                    continue
                except SealBroken:
                    unreadable.append(key.key_id)
        return count, unreadable

    def due(self) -> list[HourKey]:
        policy, now = self._policy(), self._clock.read().earliest
        return [
            key
            for key in self.keys()
            if key.destroyed_at is None and policy.judge(key.key_id, now=now, promised=key.deadline).due
        ]

    def destroy(self, key_id: KeyId) -> HourKey:
        with locked(self._lock):
            key = self._known(key_id)
            if key is None:
                raise _never_had(key_id)
            if key.destroyed_at is not None:
                erase_file(self._wrapped(key_id))  # a private half put back from a copy
                return key
            reading = self._clock.read()
            if not self._policy().judge(key_id, now=reading.earliest, promised=key.deadline).due:
                raise ClockInDoubt(
                    f"the key of {key_id} is not due",
                    hint="If the host's clock is right, run `videostore retention confirm-clock`.",
                )
            erase_file(self._wrapped(key_id))
            return self._publish(replace(key, destroyed_at=reading.earliest))

    def _bury(self) -> None:
        """Erase what must not be there: what came back from a copy, and what a crash left of a write."""
        told = self._buried()
        with locked(self._lock):
            for key in self._living():
                if key.key_id in told:
                    log.error("key.came-back", key_id=str(key.key_id))
                    erase_file(self._wrapped(key.key_id))
                    self._publish(replace(key, destroyed_at=told[key.key_id]))
            living = {self._wrapped(key.key_id) for key in self._living()}
            for path in self._private.iterdir():
                if path not in living and erase_file(path):
                    log.warning("key.remains-erased", name=path.name)
        self._asked = True

    def _believes(self, key: HourKey, fields: Mapping[str, Json]) -> bool:
        """What is said to be destroyed and is not there is destroyed; what is there, if we signed that."""
        gone = key.destroyed_at is not None and not self._wrapped(key.key_id).exists()
        return gone or self._signed(fields)

    # --- files, under the lock ---

    def _is_strangers(self, key_id: KeyId) -> bool:
        """Say whether a header was put where no key was ever made here."""
        key = self._known(key_id)
        unknown = key is not None and not key.recipient and not self._wrapped(key_id).exists()
        return unknown and key_id not in self._buried()

    def _sign_older(self, older: MasterKey | None = None) -> None:
        """Sign the headers of before they were signed, each as soon as its private half opens under it:
        nobody else could have wrapped that."""
        for key in self._living():
            if key.recipient or not self._wrapped(key.key_id).exists():
                continue
            try:
                unsigned = _read(json.loads((self._public / f"{key.key_id}.json").read_bytes()))
                if unsigned.key_id == key.key_id and unsigned.destroyed_at is None:
                    self._unwrap(unsigned, older)
                    self._publish(unsigned)
            except (OSError, ValueError, KeyError, TypeError, KeyDestroyed, SealBroken):
                continue  # `_known` said so

    def _create(self, key_id: KeyId, policy: RetentionPolicy) -> HourKey:
        """The private half first: a header without it could never open what is sealed to it."""
        identity, recipient = new_identity()
        key = HourKey(key_id, recipient, policy.deadline(key_id))
        self._wrap(key, identity)
        return self._publish(key)

    def _publish(self, key: HourKey) -> HourKey:
        fields: dict[str, Json] = {
            "key_id": str(key.key_id),
            "recipient": key.recipient,
            "deadline": key.deadline.isoformat(),
            "destroyed_at": key.destroyed_at.isoformat() if key.destroyed_at else None,
        }
        fields["signature"] = self._signing_key.sign(fields, context=CONTEXT)
        write_file(self._public / f"{key.key_id}.json", json.dumps(fields, indent=1).encode())
        return key

    def _persist_tightening(self, policy: RetentionPolicy, older: MasterKey | None = None) -> None:
        """A shorter policy is written into every living key, so that a longer one gives nothing back.

        The private half is wrapped anew before the header changes; a crash in between leaves a key
        whose header still has the old deadline and does not open, which the next pass mends.
        """
        for key in self._living():
            shorter = replace(key, deadline=policy.deadline(key.key_id))
            if shorter.deadline >= key.deadline:
                continue
            try:
                identity = self._unwrap_either(key, shorter, older)
            except (KeyDestroyed, SealBroken) as error:  # it opens nothing, whatever its header promises
                log.error("key.unreadable", key_id=str(key.key_id), error=str(error))
                continue
            self._wrap(shorter, identity)
            self._publish(shorter)

    def _unwrap_either(self, key: HourKey, shorter: HourKey, older: MasterKey | None) -> str:
        try:
            return self._unwrap(key, older)
        except SealBroken:
            return self._unwrap(shorter, older)

    def _living(self) -> list[HourKey]:
        return [key for key in self.keys() if key.destroyed_at is None]

    def _wrapped(self, key_id: KeyId) -> Path:
        return self._private / f"{key_id}.key"

    def _wrap(self, key: HourKey, identity: str) -> None:
        wrapped = self._master_key.wrap(identity.encode(), context=_bound_to(key))
        replace_secret(self._wrapped(key.key_id), wrapped)

    def _unwrap(self, key: HourKey, older: MasterKey | None = None) -> str:
        """Return the private half. Raises SealBroken if it, its header or the master key was altered."""
        try:
            wrapped = self._wrapped(key.key_id).read_bytes()
        except FileNotFoundError:
            raise KeyDestroyed(f"the key of {key.key_id} is destroyed") from None
        except OSError as error:
            raise KeyUnavailable(
                f"the key of {key.key_id} cannot be read: {error.strerror}",
                hint="Check the disk and the rights of the keyring.",
            ) from error
        try:
            return self._master_key.unwrap(wrapped, context=_bound_to(key)).decode()
        except SealBroken:
            if older is None:
                raise
            return older.unwrap(wrapped, context=_bound_to(key)).decode()


def _read(fields: Mapping[str, Any]) -> HourKey:
    destroyed_at = fields["destroyed_at"]
    return HourKey(
        key_id=KeyId.parse(fields["key_id"]),
        recipient=str(fields["recipient"]),
        deadline=datetime.fromisoformat(fields["deadline"]),
        destroyed_at=datetime.fromisoformat(destroyed_at) if destroyed_at else None,
    )


def _bound_to(key: HourKey) -> bytes:
    return f"{key.key_id} {key.recipient} {key.deadline.isoformat()}".encode()


def _never_had(key_id: KeyId) -> KeyUnavailable:
    return KeyUnavailable(f"this keyring never had a key of {key_id}", hint="Is this the right site?")
