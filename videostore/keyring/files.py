"""Hour keys as files, so that destruction can be checked with ``ls``.

::

    keyring/public/<key id>.json     recipient, promised deadline, time of destruction: stays as evidence
    keyring/private/<key id>.key     the private half, wrapped; destroyed at the deadline
    master.key                       32 random bytes that wrap them; keep it on another device

The wrap is ChaCha20-Poly1305 under HKDF-SHA-256(master key, key id). Key id and promised deadline are
authenticated with it: whoever edits a header to a later deadline has a key that does not open.
Private halves are never kept in memory beyond one ``open``, so what another process destroyed is gone
here too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from videostore import telemetry
from videostore.domain.errors import ClockInDoubt, KeyDestroyed, KeyUnavailable
from videostore.domain.retention import RetentionPolicy
from videostore.domain.segment import KeyId
from videostore.durable import disk_errors, erase_file, locked, make_directory, write_file
from videostore.ports import Clock, HourKey
from videostore.sealing import new_identity, open_sealed

_MASTER_BYTES = 32
_NONCE_BYTES = 12
log = telemetry.logger("keyring")


def create_master_key(path: Path) -> None:
    """Write a new master key (mode 0600). An existing one is never replaced."""
    if path.exists():
        raise KeyUnavailable(f"{path} exists already", hint="A master key is never overwritten.")
    write_file(path, os.urandom(_MASTER_BYTES), mode=0o600)


class PublishedKeys:
    """Port PublicKeys, over the published headers alone: all that a recorder may read."""

    def __init__(self, directory: Path, *, policy: Callable[[], RetentionPolicy], clock: Clock) -> None:
        self._public = directory / "public"
        self._policy = policy
        self._clock = clock
        self._destroyed: dict[KeyId, HourKey] = {}  # final, so read once

    def recipient(self, key_id: KeyId) -> str:
        key = self._header(key_id)
        if key is None:
            raise KeyUnavailable(
                f"no key is published for {key_id}",
                hint="`videostore run retention` makes keys ahead; see that it runs.",
            )
        self._refuse_past(key)
        return key.recipient

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
                if key := self._header(key_id):
                    yield key

    def _refuse_past(self, key: HourKey) -> None:
        deadline = self._policy().judge(key.key_id, now=key.deadline, promised=key.deadline).deadline
        if key.destroyed_at is not None or self._clock.read().latest >= deadline:
            raise KeyDestroyed(
                f"the key of {key.key_id} is destroyed", hint="Footage past its deadline opens for nobody."
            )

    def _header(self, key_id: KeyId) -> HourKey | None:
        if key_id in self._destroyed:
            return self._destroyed[key_id]
        path = self._public / f"{key_id}.json"
        try:
            fields = json.loads(path.read_bytes())
            destroyed_at = fields["destroyed_at"]
            key = HourKey(
                key_id=KeyId.parse(fields["key_id"]),
                recipient=str(fields["recipient"]),
                deadline=datetime.fromisoformat(fields["deadline"]),
                destroyed_at=datetime.fromisoformat(destroyed_at) if destroyed_at else None,
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeyUnavailable(
                f"the header {path} cannot be read: {error}", hint="Restore it from a copy of keyring/public."
            ) from error
        if key.key_id != key_id or key.deadline.tzinfo is None:
            raise KeyUnavailable(f"the header {path} is that of another key", hint="Restore it from a copy.")
        if key.destroyed_at is not None:
            self._destroyed[key_id] = key
        return key


class FileKeyring(PublishedKeys):
    """Port Keyring. Making one destroys what is due before anything is served."""

    def __init__(
        self,
        directory: Path,
        *,
        master_key: Path,
        policy: Callable[[], RetentionPolicy],
        clock: Clock,
        ahead: timedelta,
    ) -> None:
        super().__init__(directory, policy=policy, clock=clock)
        self._private = directory / "private"
        self._lock = directory / ".lock"
        self._master_key = master_key
        self._ahead = ahead
        make_directory(self._public)
        make_directory(self._private, mode=0o700)
        for key in self.due():
            self.destroy(key.key_id)

    def create_ahead(self) -> list[HourKey]:
        policy, reading = self._policy(), self._clock.read()
        created: list[HourKey] = []
        with locked(self._lock):
            self._persist_tightening(policy)
            # From the period before: a camera's clock may lie a little behind (max_clock_offset).
            key_id = KeyId.covering(reading.earliest - policy.key_period, policy.key_period)
            # Never from the later reading: a wild clock gets no wild number of keys.
            until = reading.earliest + self._ahead
            while key_id.start <= until:
                if self._header(key_id) is None:
                    created.append(self._create(key_id, policy))
                key_id = key_id.next
        return created

    def open(self, key_id: KeyId, sealed: bytes) -> bytes:
        key = self._header(key_id)
        if key is None:
            raise _never_had(key_id)
        self._refuse_past(key)
        return open_sealed(sealed, identity=self._unwrap(key))

    def due(self) -> list[HourKey]:
        policy, now = self._policy(), self._clock.read().earliest
        return [
            key
            for key in self.keys()
            if key.destroyed_at is None and policy.judge(key.key_id, now=now, promised=key.deadline).due
        ]

    def destroy(self, key_id: KeyId) -> HourKey:
        with locked(self._lock):
            key = self._header(key_id)
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

    # --- files, under the lock ---

    def _create(self, key_id: KeyId, policy: RetentionPolicy) -> HourKey:
        """The private half first: a header without it could never open what is sealed to it."""
        identity, recipient = new_identity()
        key = HourKey(key_id, recipient, policy.deadline(key_id))
        self._wrap(key, identity)
        return self._publish(key)

    def _publish(self, key: HourKey) -> HourKey:
        fields = {
            "key_id": str(key.key_id),
            "recipient": key.recipient,
            "deadline": key.deadline.isoformat(),
            "destroyed_at": key.destroyed_at.isoformat() if key.destroyed_at else None,
        }
        write_file(self._public / f"{key.key_id}.json", json.dumps(fields, indent=1).encode())
        return key

    def _persist_tightening(self, policy: RetentionPolicy) -> None:
        """A shorter policy is written into every living key, so that a longer one gives nothing back.

        The private half is wrapped anew before the header changes; a crash in between leaves a key
        whose header still has the old deadline and does not open, which the next pass mends.
        """
        for key in list(self.keys()):
            if key.destroyed_at is None and policy.deadline(key.key_id) < key.deadline:
                shorter = replace(key, deadline=policy.deadline(key.key_id))
                try:
                    identity = self._unwrap(key)
                except KeyUnavailable:
                    identity = self._unwrap(shorter)
                self._wrap(shorter, identity)
                self._publish(shorter)

    def _wrapped(self, key_id: KeyId) -> Path:
        return self._private / f"{key_id}.key"

    def _wrap(self, key: HourKey, identity: str) -> None:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher(key.key_id).encrypt(nonce, identity.encode(), _bound_to(key))
        write_file(self._wrapped(key.key_id), nonce + sealed, mode=0o600)

    def _unwrap(self, key: HourKey) -> str:
        path = self._wrapped(key.key_id)
        try:
            data = path.read_bytes()
            return (
                self._cipher(key.key_id)
                .decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound_to(key))
                .decode()
            )
        except FileNotFoundError:
            raise KeyDestroyed(f"the key of {key.key_id} is destroyed") from None
        except (OSError, InvalidTag, ValueError) as error:
            raise KeyUnavailable(
                f"the key of {key.key_id} cannot be unwrapped: {type(error).__name__}",
                hint="The file, its header or the master key was altered; restore them as they were.",
            ) from error

    def _cipher(self, key_id: KeyId) -> ChaCha20Poly1305:
        try:
            master = self._master_key.read_bytes()
        except OSError as error:
            raise KeyUnavailable(
                f"the master key {self._master_key} cannot be read: {error.strerror}",
                hint="Mount the device that holds it, or correct keyring.master_key.",
            ) from error
        if len(master) != _MASTER_BYTES:
            raise KeyUnavailable(
                f"{self._master_key} is not a master key: it has {len(master)} bytes, not {_MASTER_BYTES}",
                hint="Restore the file that `videostore init` made.",
            )
        info = b"videostore hour key " + str(key_id).encode()
        return ChaCha20Poly1305(HKDF(SHA256(), _MASTER_BYTES, salt=None, info=info).derive(master))


def _bound_to(key: HourKey) -> bytes:
    return f"{key.key_id} {key.recipient} {key.deadline.isoformat()}".encode()


def _never_had(key_id: KeyId) -> KeyUnavailable:
    return KeyUnavailable(f"this keyring never had a key of {key_id}", hint="Is this the right site?")
