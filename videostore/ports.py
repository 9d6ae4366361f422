"""What the rooms need from outside, each with its obligations.

Rooms import these, never each other; ``app`` puts them together. For every port the file named
in its docstring is the full contract, and runs over all its adapters. Every failure is an error
of ``domain.errors``; a port never lets a library's own exception out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from videostore.domain.access import Acknowledgement, Dossier
from videostore.domain.camera import Camera, CameraId
from videostore.domain.clock import Reading
from videostore.domain.identity import Proof
from videostore.domain.ledger import Event, Json, Record
from videostore.domain.presence import Roll
from videostore.domain.retention import SegmentState
from videostore.domain.segment import Gap, KeyId, ObjectKey, Segment, Sha256Hex, Span


class Clock(Protocol):
    """Tells the time, and whether to believe it. tests/contracts/test_clock.py is the full contract."""

    def now(self) -> datetime:
        """Return the host's time, aware, UTC: for stamps, never for deciding a deadline."""

    def read(self) -> Reading:
        """Return the interval in which the true time lies. One reading serves one pass or one request."""


# --- segment bytes ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One entry of a listing. ``stored_at`` is the store's own time of the last write."""

    key: ObjectKey
    size_bytes: int
    stored_at: datetime


class SegmentStore(Protocol):
    """Keeps the bytes of segments. tests/contracts/test_segment_store.py is the full contract.

    Bytes are sealed before they come here, and no answer of a store is ever trusted further than
    its hash. Keys are ASCII, ``/``-separated. All methods may raise StoreUnavailable (a later
    retry may succeed) or StoreRefused (it will not).
    """

    def put(self, key: ObjectKey, body: bytes, *, sha256: Sha256Hex) -> None:
        """Store ``body`` durably before returning. Idempotent: the same bytes again are no error.

        Raises IntegrityError if ``body`` does not hash to ``sha256`` or the stored bytes differ,
        DiskFull if there is no room. A failed put leaves nothing under ``key``, or all of it.
        """

    def link(self, key: ObjectKey, file: Path, /) -> bool:
        """Keep ``file`` itself under ``key``, durably, without copying it; return False, and do nothing,
        where that cannot be: on another disk or machine, or where there is something already.

        The caller vouches for what ``put`` would have looked at: the file is synced, is what its hash says,
        and is never written to again. It may be unlinked.
        """

    def get(self, key: ObjectKey) -> bytes:
        """Return the whole object. Raises ObjectMissing if it is not there."""

    def size(self, key: ObjectKey) -> int | None:
        """Return the size in bytes, or None if the store says with authority that ``key`` is absent:
        not even an older version is there.

        A refusal, a time-out or a server error is not absence: it raises.
        """

    def delete(self, keys: Collection[ObjectKey]) -> Mapping[ObjectKey, str]:
        """Remove every version, delete marker and unfinished upload of each of ``keys``. Idempotent.

        Returns those that the store would not remove, each with why, in one line; the others were
        not held up by them. Only ``size`` or ``remains`` then say whether a key is gone.
        """

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield all objects whose key starts with ``prefix``, in byte order of the key."""

    def remains(self, prefix: str = "", *, after: str = "") -> Iterator[StoredObject]:
        """Yield everything that is kept under ``prefix``, also what ``objects`` does not show any more: older
        versions, delete markers and unfinished uploads, each under its key.

        In byte order of the key, which may come several times; none before ``after`` nor that key itself, so
        that a listing that broke off goes on behind the last key of which all was seen.
        """

    def prefixes(self, prefix: str = "") -> list[str]:
        """Return the distinct key parts up to the next ``/`` after ``prefix``, sorted, each ending in ``/``.

        ``prefixes("segments/")`` gives the capture days that have objects, at a cost that grows
        with the number of days and not of objects. A prefix that was emptied may be named for a while.
        """

    def time(self) -> datetime | None:
        """Return the store's own clock if it has one that is independent of this host's, else None."""


# --- segment facts ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Totals:
    """What the catalogue holds. ``oldest`` is the start of the oldest live span, None when empty."""

    segments: int
    size_bytes: int
    condemned: int
    oldest: datetime | None
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of a camera is sealed to a key. ``camera_id`` is None for entry/exit records."""

    key_id: KeyId
    camera_id: CameraId | None
    objects: int
    size_bytes: int


class Catalogue(Protocol):
    """Index of segment facts. tests/contracts/test_catalogue.py is the full contract.

    Never bytes, never personal data, and nothing that the object keys do not say, except gaps. Who may
    write to it can have it say anything: a row that nothing can be made of is passed over.
    A segment is live, then condemned, then absent, then forgotten; back only by ``revive``. All methods may
    raise CatalogueUnavailable, and each is one transaction where nothing else is said. What retention
    calls each minute (from ``key_ids`` on, but ``totals``) costs as much as expires, however much is live.
    """

    def add(self, segment: Segment) -> None:
        """Record a segment that the store has confirmed, as live. Adding it again changes nothing,
        whatever its state by now."""

    def adopt(self, segments: Iterable[Segment]) -> int:
        """Record segments found in the store but not here, as live; a row that says other than its object
        key is put right, and live again. Returns how many were new or wrong."""

    def add_gap(self, gap: Gap) -> None:
        """Record a gap; one that goes on where another of that reason ends makes it longer. Idempotent."""

    def segments(self, cameras: Collection[CameraId], span: Span) -> list[Segment]:
        """Return live segments that overlap ``span``, ordered by camera and start."""

    def footage(self, cameras: Collection[CameraId], span: Span) -> list[tuple[CameraId, Span]]:
        """Return where there are live segments that overlap ``span``, ordered by camera and start. Segments
        that touch, up to JITTER of ``domain.coverage``, are one span; nothing is cut."""

    def gaps(self, cameras: Collection[CameraId], span: Span) -> list[Gap]:
        """Return gaps that overlap ``span``, ordered by camera and start."""

    def last_end(self, camera_id: CameraId) -> datetime | None:
        """Return the end of the newest segment of a camera, in any state."""

    def known(self, keys: Collection[ObjectKey]) -> set[ObjectKey]:
        """Return those of ``keys`` that have a row, in any state, which says what the key says."""

    def altered(self) -> Iterator[str]:
        """Yield what is wrong with each row, in any state, that does not say what its object key says: the
        key as it stands there, and the columns. Reads all rows."""

    def key_ids(self, *, until: datetime) -> list[KeyId]:
        """Return the distinct key ids, oldest first, of live rows whose key starts before ``until``."""

    def oldest_key(self, camera_id: CameraId) -> KeyId | None:
        """Return the key of the oldest live segment of a camera."""

    def oldest(self) -> datetime | None:
        """Return the start of the oldest live span."""

    def condemn(self, key_id: KeyId, camera_id: CameraId | None = None) -> int:
        """Mark every live segment sealed to ``key_id`` as condemned; with ``camera_id``, of that camera only.

        Returns how many. In transactions of bounded size: one that fails leaves the rest for the next call.
        """

    def condemn_these(self, keys: Collection[ObjectKey]) -> int:
        """Mark these as condemned, those that are live, by their names alone. Returns how many."""

    def revive(self, key_id: KeyId, camera_id: CameraId) -> int:
        """Mark what is condemned or absent of a key and a camera as live: somebody else than retention did
        that. Returns how many."""

    def cameras(self, key_id: KeyId) -> list[CameraId]:
        """Return the cameras with condemned or absent segments of ``key_id``."""

    def condemned(self, key_id: KeyId, camera_id: CameraId | None = None) -> list[Segment]:
        """Return condemned segments of ``key_id``, ordered by camera and start."""

    def mark_absent(self, keys: Collection[ObjectKey]) -> None:
        """Note that the store confirmed these condemned objects absent."""

    def absent(self, key_id: KeyId, camera_id: CameraId | None = None) -> list[Segment]:
        """Return segments of ``key_id`` confirmed absent and not yet forgotten."""

    def unfinished(self) -> list[KeyId]:
        """Return the key ids that still have condemned or absent rows, oldest first."""

    def leaving(self) -> Mapping[tuple[KeyId, CameraId, SegmentState], int]:
        """Return how many segments of each key and camera are condemned, and how many confirmed absent.
        Costs what it counts."""

    def forget(self, keys: Collection[ObjectKey]) -> None:
        """Erase rows that are absent. Rows in any other state stay."""

    def forget_gaps(self, *, until: datetime) -> int:
        """Erase gaps that ended before ``until``. Returns how many."""

    def live(self, *, after: ObjectKey | None = None, limit: int = 1000) -> list[Segment]:
        """Return live segments in order of object key, a page at a time, for checks against a listing."""

    def amounts(self, *, until: datetime) -> list[Amount]:
        """Return what is there, condemned or not, of keys that start before ``until``: ordered by key and
        camera. Costs what it counts."""

    def totals(self) -> Totals:
        """Return the sums. Costs what is there: minutes where there are tens of millions."""

    def of_hour(self, start: datetime) -> tuple[int, int]:
        """Return how many live segments have a key that begins at ``start``, and their bytes. Costs what it
        counts."""


# --- keys ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HourKey:
    """Public facts of an hour key. ``recipient`` is the age recipient (``age1…``)."""

    key_id: KeyId
    recipient: str
    deadline: datetime
    destroyed_at: datetime | None = None


class PublicKeys(Protocol):
    """What a recorder gets of the keyring: public halves only. tests/contracts/test_keyring.py."""

    def recipient(self, key_id: KeyId) -> str:
        """Return the age recipient to seal to. Raises KeyUnavailable if none was published,
        KeyDestroyed if the key is destroyed or past its deadline."""


class MasterKey(Protocol):
    """Wraps the private halves of hour keys. tests/contracts/test_master_key.py is the full contract.

    It has generations: the newest wraps, all of them unwrap. All methods raise KeyUnavailable when it
    cannot be reached, or is not kept as it must be.
    """

    def wrap(self, secret: bytes, *, context: bytes) -> bytes:
        """Return ``secret`` encrypted, with ``context`` authenticated."""

    def unwrap(self, wrapped: bytes, *, context: bytes) -> bytes:
        """Return the secret. Raises SealBroken if no generation wrapped these bytes under ``context``."""

    def renew(self) -> None:
        """Make a new generation, which wraps from now on; the first one if there is none."""

    def retire(self) -> None:
        """Destroy every generation but the newest, for good."""


class Keyring(PublicKeys, Protocol):
    """Holds hour keys from creation to destruction. tests/contracts/test_keyring.py is the full contract.

    Private halves never leave it. It judges the deadline itself at every ``open``, by the latest
    time its clock may mean, so a key whose destruction is late opens nothing.
    """

    def create_ahead(self) -> list[HourKey]:
        """Make the keys from now to the horizon that do not exist yet; a destroyed key is never
        made again. Returns the new ones."""

    def open(self, key_id: KeyId, sealed: bytes) -> bytes:
        """Return what was sealed to ``key_id``, in memory only. Raises KeyDestroyed from the moment
        of the deadline, KeyUnavailable if there is no such key, SealBroken if the bytes were altered."""

    def due(self) -> list[HourKey]:
        """Return the keys not yet destroyed whose deletion is due at the earliest time it may be."""

    def destroy(self, key_id: KeyId) -> HourKey:
        """Erase the private half for good and durably, then return the key with ``destroyed_at``.
        Idempotent. Raises ClockInDoubt if the key is not due."""

    def keys(self) -> Iterator[HourKey]:
        """Yield all keys, destroyed ones included, oldest first. One whose header cannot be read has no
        recipient; it keeps no other from being destroyed."""


# --- proof -----------------------------------------------------------------------------------


Draft: TypeAlias = tuple[Event, str, Mapping[str, Json]]
"""Event, actor and body of a record to be."""


class Ledger(Protocol):
    """Append-only record of every decision and deletion. tests/contracts/test_ledger.py is the full contract.

    Shared by processes: appends are serialised. All methods may raise LedgerUnavailable.
    """

    def append(self, event: Event, *, actor: str, body: Mapping[str, Json]) -> Record:
        """Chain, sign and write a record durably before returning. Never a partial record."""

    def append_all(self, drafts: Sequence[Draft]) -> Sequence[Record]:
        """The same for several, in this order, with none of another between them. An error says that none is
        there; a power cut in between may leave the first of them."""

    def records(self, *, after: int = -1) -> Iterator[Record]:
        """Yield the records whose sequence is greater than ``after``, in order. Raises LedgerBroken
        at the first that does not follow the one before it."""

    def find(self, *events: Event) -> Iterator[Record]:
        """Yield the records of these kinds, in order. Each signature is checked, the chain between them is
        not: it costs what reading costs. Raises LedgerBroken."""


class Anchor(Protocol):
    """Keeps checkpoints of the ledger where the site cannot change them. tests/contracts/test_anchor.py is
    the full contract."""

    def keep(self, name: str, line: bytes) -> None:
        """Keep ``line`` under ``name``, which is new. Raises StoreError, DiskError or ConfigInvalid."""

    def kept(self) -> Iterator[tuple[str, bytes]]:
        """Yield everything that was kept under its name, also what was written over or hidden since, that of
        the longest ledger first by its name. Raises the same, and StoreRefused where we may only add."""


# --- people ----------------------------------------------------------------------------------


class StaffDirectory(Protocol):
    """What is on file about people. tests/contracts/test_staff_directory.py is the full contract."""

    def dossier(self, staff_id: str) -> Dossier | None:
        """Return everything on file, signatures checked now; None if there is nobody of that name."""

    def prove(self, staff_id: str, password: str, code: str, *, now: datetime) -> Proof | None:
        """Say what these prove of a local account, in the same time whether or not the person exists; None
        if nobody does."""

    def holder(self, issuer: str, subject: str) -> str | None:
        """Return whose subject of OpenID Connect this is, None if it is nobody's on file."""

    def file_acknowledgement(self, paper: Mapping[str, Any]) -> Acknowledgement:
        """Keep an acknowledgement that the person signed elsewhere. Raises SignatureInvalid, StaffUnknown."""


class PresenceRecords(Protocol):
    """What the entry/exit records say. tests/rooms/test_presence.py holds its tests; one adapter."""

    def on_premises(self, at: datetime) -> Roll:
        """Return who was inside at ``at``, and what could not be read. One record that is damaged hides no
        other: people search by this. May raise StoreUnavailable."""


# --- cameras ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SoundInfo:
    """How the sound beside a picture is to be decoded: ``aac``, or G.711 as ``pcm_alaw`` and ``pcm_mulaw``.

    ``extradata`` is the AudioSpecificConfig of AAC (ISO/IEC 14496-3, 1.6.2.1), empty for G.711; ``time_base``
    the length of one tick of its packets in seconds.
    """

    codec: str
    sample_rate_hz: int
    channels: int
    time_base: Fraction
    extradata: bytes = b""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """How the packets of a stream are to be decoded.

    ``extradata`` is the codec's own header (SPS and PPS for H.264), ``time_base`` the length of one
    tick in seconds. ``sound`` is None where there is none, none that can be recorded, or none wanted
    (``Camera.sound``): no packet is sound then.
    """

    codec: str
    width_px: int
    height_px: int
    time_base: Fraction
    extradata: bytes
    sound: SoundInfo | None = None


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded frame, in order of decoding. ``pts``, when it is shown, counts ticks of ``time_base``.

    ``received_at`` is the host's time of arrival, ``claimed_at`` the camera's own wall clock for
    this frame if it sent one (RTCP sender report). ``lost`` is how many RTP packets are known to be missing
    between the frame before and this one, or inside either. ``units`` is where in ``data`` units begin, each
    behind a start code of four bytes, if whoever received it was told; empty if it has to be searched.

    With ``sound`` it is one AAC access unit (without ADTS header), or any number of G.711 samples. Its
    ``pts`` counts ticks of the sound's own ``time_base``, from a zero of its own: what places it beside the
    picture is ``claimed_at``, and ``received_at`` while either of the two claims nothing.
    """

    data: bytes
    pts: int
    keyframe: bool
    received_at: datetime
    claimed_at: datetime | None
    lost: int = 0
    sound: bool = False
    units: tuple[int, ...] = ()


class CameraStream(Protocol):
    """An open stream; a context manager. tests/contracts/test_camera_source.py is the full contract."""

    @property
    def info(self) -> StreamInfo: ...

    def packets(self) -> Iterator[Packet]:
        """Yield packets as they arrive, picture and sound. The end of a live stream is an error: it raises
        CameraUnreachable when the camera hangs up or stalls."""

    def close(self) -> None: ...


class CameraSource(Protocol):
    """Opens a camera's stream."""

    def open(self, camera: Camera, credentials: tuple[str, str] | None) -> CameraStream:
        """Connect. Raises CameraUnreachable, CameraRefused, CameraNotRtsp, CameraUntrusted or
        CameraStreamInvalid. Nothing of the credentials leaves before a certificate is verified. Sound is
        asked for (SETUP) only if ``camera.sound``; one that cannot be recorded is left out."""


# --- everything that holds copies ------------------------------------------------------------


class Holding(Protocol):
    """A place that holds copies of footage besides the object store: spool, exports, presence records.

    Retention empties each of them of what is due (invariant 1), whether or not the room that filled
    it still runs.
    """

    name: str

    def key_ids(self) -> Sequence[KeyId]:
        """Return the key ids of what is held, oldest first."""

    def remove(self, key_id: KeyId) -> int:
        """Remove everything sealed to ``key_id`` and confirm it absent. Returns how many. Idempotent."""
