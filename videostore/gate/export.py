"""Exports: films and a manifest, signed, made while they are sent; no copy stays with the gate.

A film is an ONVIF export file (``domain.onvif``) cut to the frame (``domain.film``). Where footage is missing
or its format changes the next begins. A viewing copy (``gate.viewing_copy``) goes the same way. A download
that broke off goes on at its offset: everything but the signature comes out the same when it is made again,
and the signature is kept.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import BoundedSemaphore, Lock
from typing import Any

from videostore.domain import cmaf, onvif
from videostore.domain.access import Decision, Mode, Reason
from videostore.domain.camera import Camera
from videostore.domain.chain import Item, Run, belongs
from videostore.domain.errors import (
    FootageDeleted,
    LedgerBroken,
    ObjectMissing,
    RequestInvalid,
    TooManyRequests,
)
from videostore.domain.film import Film
from videostore.domain.ledger import Event, Json, canonical
from videostore.domain.segment import Segment, Sha256Hex
from videostore.gate.footage import GAP, Footage, Part, Serving
from videostore.gate.rules import Rules
from videostore.gate.search import FOOTAGE, Search, why_missing
from videostore.gate.viewing_copy import Label, burnt
from videostore.ports import Catalogue, Ledger
from videostore.signing import ExportKey

FORMAT = 1
"""Version of the manifest."""
VIEWING_COPIES = 4
"""Made at a time: each holds one of the threads that everybody is served by while it waits for the others."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Who exports: the name of the site, its key for exports, and the recorder's public key."""

    name: str
    key: ExportKey
    recorder: str


@dataclass(slots=True)
class _Export:
    """One export under way. ``begins``: the part each film begins with; ``metas``: films that are whole."""

    at: datetime
    begins: list[int] = field(default_factory=lambda: [0])
    metas: dict[int, bytes] = field(default_factory=dict)
    films: dict[int, Mapping[str, Json]] = field(default_factory=dict)


class Exports:
    """Makes exports. Safe to share between threads."""

    def __init__(
        self,
        rules: Rules,
        *,
        footage: Footage,
        search: Search,
        catalogue: Catalogue,
        ledger: Ledger,
        unit: Unit,
    ) -> None:
        self._rules = rules
        self._footage = footage
        self._search = search
        self._catalogue = catalogue
        self._ledger = ledger
        self._unit = unit
        self._exports: dict[str, _Export] = {}
        self._copies = BoundedSemaphore(VIEWING_COPIES)
        self._encoding = Lock()  # a segment at a time for all who export: players come first

    def film(
        self, serving: Serving, camera: Camera, number: int, *, offset: int = 0, person: Callable[[], str]
    ) -> Iterator[bytes]:
        """Yield film ``number`` of an export, from ``offset`` on; they are made in order. ``person`` asks the
        login that it is fetched by, and raises NotLoggedIn when that has ended.

        Raises RequestInvalid if there is no such film, AccessRefused for what was not granted for export,
        TooManyRequests if others have viewing copies made.
        Login and rules are asked for every segment. What left is recorded when it ends, however it ends.
        """
        export = self._export(serving)
        if not 0 <= number < len(export.begins) or export.begins[number] >= len(serving.parts):
            raise RequestInvalid(
                f"there is no film {number}", hint="`videostore search` shows what there is."
            )
        if serving.viewing_copy and not self._copies.acquire(blocking=False):
            raise TooManyRequests(
                f"{VIEWING_COPIES} viewing copies are being made", hint="Type it again in some minutes."
            )
        making = _Making(offset)
        try:
            self._footage.record_fetch(serving)
            next_part = yield from self._segments(serving, camera, export.begins[number], making, person)
            if number + 1 == len(export.begins):
                export.begins.append(next_part)
            if making.film is not None:
                yield from making.send(making.film.tail())
                yield from making.send(self._meta(serving, export, camera, number, making))
                export.films[number] = making.facts(number)
        finally:
            if serving.viewing_copy:
                self._copies.release()
            if making.film is not None and making.film.frames:
                left = [part.segment for part, _ in making.used]
                self._footage.record_served(serving, left, [making.film.shown], making.film.frames)

    def films(self, serving: Serving) -> int:
        """Return how many films there are, as far as is known: each tells whether another follows."""
        export = self._export(serving)
        self._footage.ask(serving, serving.grant.request.span)
        return sum(one < len(serving.parts) for one in export.begins)

    def manifest(self, serving: Serving, camera: Camera) -> dict[str, Any]:
        """Return what was exported, signed: for what, by whom, from which segments, and what is missing."""
        export, grant = self._export(serving), serving.grant
        self._footage.ask(serving, grant.request.span)
        book = self._rules.book()
        incident = book.incidents[grant.request.incident_id]
        delete_by = self._footage.delete_by(serving)
        assert serving.begun is not None
        manifest: dict[str, Json] = {
            "format": FORMAT,
            "kind": "viewing-copy" if serving.viewing_copy else "original",
            "site": self._unit.name,
            "exported_at": export.at.isoformat(),
            "delete_by": delete_by.isoformat() if delete_by else None,
            "purpose": incident.purpose.value,
            "incident_id": incident.id,
            "reference": incident.reference,
            "person": serving.staff_id,
            "second_person": grant.second_person,
            "grant_id": grant.id,
            "serving_id": serving.id,
            "camera": {
                "id": str(camera.id), "name": camera.name, "group": camera.group, "place": camera.place,
            },
            "requested": [grant.request.span.start.isoformat(), grant.request.span.end.isoformat()],
            "films": [export.films[number] for number in sorted(export.films)],
            "missing": [
                {
                    "start": one.span.start.isoformat(),
                    "end": one.span.end.isoformat(),
                    "kind": one.state.value,
                    "why": why_missing(one),
                }
                for one in self._search.explained(camera.id, grant.request.span)
                if one.state not in FOOTAGE or why_missing(one)
            ],
            "recorder": self._unit.recorder,
            "runs": self._proofs([part.segment for part in serving.parts]),
            "ledger": {"sequence": serving.begun.sequence, "hash": serving.begun.hash},
        }  # fmt: skip
        signature = self._unit.key.sign(hashlib.sha256(canonical(manifest)).digest())
        return {
            "manifest": manifest,
            "signature": base64.b64encode(signature).decode(),
            "certificate": base64.b64encode(self._unit.key.certificate).decode(),
        }

    # --- pieces ---

    def _export(self, serving: Serving) -> _Export:
        """Return the state of an export. Only what was granted for export leaves as a film of its own."""
        if serving.mode is not Mode.EXPORT:
            decision = Decision(Reason.MODE_NOT_GRANTED)
            self._rules.check(serving.staff_id, Mode.EXPORT.value, decision, serving_id=serving.id)
        for ended in [one for one in list(self._exports) if not self._footage.knows(one)]:
            self._exports.pop(ended, None)
        return self._exports.setdefault(serving.id, _Export(self._rules.now()))

    def _segments(
        self, serving: Serving, camera: Camera, index: int, making: _Making, person: Callable[[], str]
    ) -> Generator[bytes, None, int]:
        """Send the segments of one film, from part ``index`` on; return where the next film begins."""
        before: Part | None = None
        while index < len(serving.parts):
            part = serving.parts[index]
            person()
            try:
                found = self._movie(serving, camera, part)
            except (FootageDeleted, ObjectMissing):
                found = None
            if found is None:
                if making.film is not None:
                    return index
                index += 1
                continue
            start, movie = found
            film = making.film
            if film is None:
                film = making.film = Film(movie.init, asked=serving.grant.request.span)
                yield from making.send(film.head)
            elif movie.init != film.init or (before and abs(part.span.start - before.span.end) > GAP):
                return index
            data = film.add(start, (one.data for one in movie.fragments))
            if data:
                making.used.append((part, data_digest(data[8:])))
                yield from making.send(data)
            before, index = part, index + 1
        return index

    def _movie(self, serving: Serving, camera: Camera, part: Part) -> tuple[datetime, cmaf.Movie] | None:
        """Open a segment; burn it if that was asked for. Returns when its first frame was captured, too."""
        start, asked = part.segment.span.start, serving.grant.request.span
        if not serving.viewing_copy:
            return start, self._footage.movie_of(serving, part)
        incident = self._rules.book().incidents[serving.grant.request.incident_id]
        label = Label(camera.name, serving.staff_id, incident.id, incident.reference)
        with self._encoding:  # whoever waits opens nothing before it is his turn
            return burnt(self._footage.movie_of(serving, part), start=start, asked=asked, label=label)

    def _meta(self, serving: Serving, export: _Export, camera: Camera, number: int, making: _Making) -> bytes:
        """Return the end of a film, signed: the same again if it is made again."""
        if number in export.metas:
            return export.metas[number]
        film = making.film
        assert film is not None
        assert film.origin is not None
        kind = onvif.VIEWING_COPY if serving.viewing_copy else onvif.ORIGINAL
        provenance = onvif.Provenance(
            unit=self._unit.name,
            operator=serving.staff_id,
            exported_at=export.at,
            source=camera.name,
            source_url=f"urn:uuid:{camera.id}",
            track_ids=[track_id for track_id, track in film.tracks.items() if track.samples],
        )
        signed = onvif.Signed(
            signature=bytes(self._unit.key.size_bytes),
            certificate=self._unit.key.certificate,
            starts=film.origin,
            track_id=film.picture,
            remark=f"{kind} {serving.id}, film {number + 1}",
        )
        unsigned = onvif.Meta(provenance.to_box(), [signed])
        digest = making.digest.copy()
        digest.update(unsigned.to_box())
        signature = self._unit.key.sign(digest.digest())
        export.metas[number] = onvif.Meta(
            unsigned.provenance, [replace(signed, signature=signature)]
        ).to_box()
        return export.metas[number]

    def _proofs(self, segments: Sequence[Segment]) -> list[Json]:
        """Return the signed runs of the chain that the segments are of, and all that was folded into them."""
        camera_id, wanted = segments[0].camera_id if segments else None, {one.key_id for one in segments}
        runs: list[tuple[Run, str]] = []
        lost: list[tuple[str, Item]] = []
        for record in self._ledger.find(Event.SEGMENTS_CHAINED, Event.SEGMENT_GIVEN_UP):
            if record.body.get("camera_id") != str(camera_id):
                continue
            try:
                if record.event is Event.SEGMENTS_CHAINED:
                    runs.append((Run.from_json(record.body), str(record.body["signature"])))
                else:
                    lost.append((str(record.body["key_id"]), _given_up(record.body)))
            except (KeyError, ValueError, TypeError) as error:
                raise LedgerBroken(
                    f"record {record.sequence} does not hold what it should: {error}"
                ) from error
        proofs: list[Json] = []
        for run, signature in runs:
            if run.key_id in wanted:
                known = self._catalogue.segments([run.camera_id], run.span)
                items = {Item.of(one) for one in known if belongs(one, run)}
                items |= {item for key_id, item in lost if key_id == str(run.key_id)}
                folded: list[Json] = [item.to_json() for item in sorted(items)]
                proofs.append({"run": run.to_json(), "signature": signature, "items": folded})
        return proofs


class _Making:
    """A film on its way: its hash and what it is made of. Nothing before ``offset`` is sent."""

    def __init__(self, offset: int) -> None:
        self.film: Film | None = None
        self.used: list[tuple[Part, str]] = []
        self.digest = hashlib.sha256()
        self._size = 0
        self._offset = offset

    def send(self, chunk: bytes) -> Iterator[bytes]:
        self.digest.update(chunk)
        begins, self._size = self._size, self._size + len(chunk)
        if self._size > self._offset:
            yield chunk[max(0, self._offset - begins) :]

    def facts(self, number: int) -> Mapping[str, Json]:
        """Return what the manifest says of the film."""
        film = self.film
        assert film is not None
        assert film.origin is not None
        return {
            "number": number + 1,
            "shown": [film.shown.start.isoformat(), film.shown.end.isoformat()],
            "begins": film.origin.isoformat(),
            "frames": film.frames,
            "size_bytes": self._size,
            "sha256": self.digest.hexdigest(),
            "segments": [
                {"object_key": part.segment.object_key, "content_sha256": content}
                for part, content in self.used
            ],
        }


def data_digest(data: bytes) -> Sha256Hex:
    return Sha256Hex(hashlib.sha256(data).hexdigest())


def _given_up(body: Mapping[str, Json]) -> Item:
    start = datetime.fromisoformat(str(body["start"]))
    return Item(int(str(body["sequence"])), start, Sha256Hex(str(body["digest"])))
