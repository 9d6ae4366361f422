"""The story that ``videostore demo`` tells: record, refuse, view, export, expire, with nothing faked.

The roles are the real ones, each a process of its own; only the cameras are synthetic (behind a real
RTSP server) and the policy is short: footage lives for seconds instead of 30 days.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from rich.text import Text

from videostore import app as composition
from videostore.app import proof as proofs
from videostore.cli.client import ENVIRONMENT, GateClient, Session
from videostore.cli.download import progress, to_directory
from videostore.cli.footage import watched
from videostore.cli.output import console, show_size, show_time
from videostore.cli.scene import make_site
from videostore.domain.access import DEPARTMENT, Mode, Purpose
from videostore.domain.errors import (
    AccessRefused,
    GateUnavailable,
    KeyDestroyed,
    PromiseBroken,
    SiteExists,
)
from videostore.domain.ledger import Event
from videostore.domain.retention import Kind
from videostore.domain.segment import Segment, Span
from videostore.signing import SigningKey
from videostore.synthetic.film import breaks, frame_numbers
from videostore.synthetic.stream import stream

_START_SECONDS = 60.0
_FIRST_FOOTAGE_SECONDS = 60.0
_VIEWED = timedelta(seconds=4)
_PASSWORD = "demonstration only"  # noqa: S105 - of people who do not exist


@dataclass
class _Seen:
    """What the demonstration saw with its own eyes."""

    segments: dict[str, Segment] = field(default_factory=dict)
    viewings: int = 0
    exports: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    sealed: tuple[Segment, bytes] | None = None


class Demonstration:
    """One demonstration; a context manager that ends every process it started."""

    def __init__(self, cameras: int, directory: Path | None, *, hasty: bool) -> None:
        self._count = cameras
        self._named = directory
        self._policy = (
            {"keep": 20, "lead": 4, "period": 5} if hasty else {"keep": 90, "lead": 5, "period": 10}
        )
        self._seen = _Seen()
        self._secrets: dict[str, str] = {}
        self._open = ExitStack()

    def __enter__(self) -> Demonstration:
        self._root = self._directory()
        self.log = self._root / "log.jsonl"
        os.environ[ENVIRONMENT] = str(self._root / "session.json")  # nothing beside the person's own login
        with ExitStack() as opened:
            self._keys = {
                name: SigningKey.create(self._root / f"{name}.key")
                for name in ("delegate", "alice", "bruno", "carol")
            }
            approver = self._keys["delegate"].public
            self._site = make_site(
                self._root / "site", opened, cameras=self._count, policy=self._policy, approver=approver
            )
            self._parts = opened.enter_context(composition.Parts(self._site))
            self._process = opened.enter_context(self._running())
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    # --- the story ---

    def play(self, seconds: int | None) -> None:
        """Tell the story from beginning to end. With ``seconds`` None it goes on until Ctrl-C."""
        began = time.monotonic()
        _say(f"{self._count} cameras are recorded, sealed to keys that live {self._policy['keep']} seconds")
        self._until(self._every_camera_has_footage, _FIRST_FOOTAGE_SECONDS, "no footage arrived")
        self._people()
        self._refuse("carol")
        self._investigate("alice", second="bruno")
        if seconds is None:
            self._invite()
        while seconds is not None and time.monotonic() - began < seconds:
            self._look()
            time.sleep(0.5)
        _say(f"and now it expires, by itself, {self._policy['keep']} seconds after its capture")
        patience = 2.0 * self._policy["keep"] + 30
        self._until(lambda: bool(self._records(Event.CERTIFICATE)), patience, "nothing was deleted")
        self._prove_gone()
        self._check_promises()
        self._scrape()
        if seconds is None:
            self._stay()

    def facts(self) -> dict[str, Any]:
        """Return the summary, from the ledger, the catalogue and what was seen."""
        self._look()
        ledger, problems = composition.verify_ledger(self._site.root / "ledger", "")
        certificates = self._records(Event.CERTIFICATE)
        ids = [camera.id for camera in self._site.cameras.all()]
        week = timedelta(days=7)
        now = composition.host_time()
        gaps = self._parts.catalogue.gaps(ids, Span(now - week, now + week))
        seen = self._seen
        shortfalls = [*seen.problems, *problems]
        durations = (segment.span.duration.total_seconds() for segment in seen.segments.values())
        return {
            "cameras": self._count,
            "segments_stored": len(seen.segments),
            "bytes_stored": sum(segment.size_bytes for segment in seen.segments.values()),
            "seconds_recorded": round(sum(durations), 3),
            "gaps": len(gaps),
            "refusals": len(self._records(Event.REFUSED)),
            "viewings": seen.viewings,
            "exports": seen.exports,
            "segments_deleted": sum(body["segments"] for body in certificates),
            "keys_destroyed": len(self._records(Event.KEY_DESTROYED)),
            "certificates": len(certificates),
            "ledger_records": ledger["records"],
            "ledger_ok": not problems,
            "metrics_url": self._metrics().get("recorder", ""),
            "metrics_urls": self._metrics(),
            "site": str(self._site.root),
            "problems": shortfalls,
            "ok": not shortfalls,
        }

    # --- the scene ---

    def _directory(self) -> Path:
        if self._named is None:
            return Path(tempfile.mkdtemp(prefix="videostore-demo-"))
        if self._named.exists() and (not self._named.is_dir() or any(self._named.iterdir())):
            raise SiteExists(
                f"{self._named} exists and is not an empty directory", hint="Name a new directory with --dir."
            )
        self._named.mkdir(parents=True, exist_ok=True)
        return self._named.absolute()

    @contextmanager
    def _running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the site as an operator would: ``videostore run all``."""
        command = [sys.executable, "-m", "videostore.cli.main", "run", "all", "--site", str(self._site.root)]
        with self.log.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own program
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._process = process
            self._until(
                lambda: {"gate", "recorder", "retention"} <= self._site.running().keys(),
                _START_SECONDS,
                "the site did not start",
            )
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()

    def _people(self) -> None:
        staff, now = composition.staff(self._site), composition.host_time()
        for name in ("alice", "bruno", "carol"):
            self._secrets[name] = staff.add(
                name, department=DEPARTMENT, password=_PASSWORD, public_key=self._keys[name].public
            )
            composition.record(self._site, Event.STAFF_ADDED, staff_id=name)
        notice = self._site.access().notice_sha256
        for name in ("alice", "bruno"):
            valid = Span(now, now + timedelta(days=1))
            approval = staff.approve(name, "delegate", self._keys["delegate"], valid=valid, now=now)
            body = {"staff_id": name, "approval_id": approval.id, "approver": "delegate"}
            composition.record(self._site, Event.STAFF_APPROVED, **body)
            staff.acknowledge(name, self._keys[name], notice_sha256=notice, now=now)
            composition.record(self._site, Event.STAFF_ACKNOWLEDGED, staff_id=name, notice_sha256=notice)
        _say("alice and bruno are approved by the delegate and signed the notice; carol is not approved")

    # --- scenes ---

    def _refuse(self, name: str) -> None:
        with self._logged_in(name) as client:
            try:
                client.post("/v1/incidents", {"purpose": Purpose.SEARCH.value, "reference": "curiosity"})
            except AccessRefused as error:
                _say(f"{name} wants to look: {error}")
                return
        self._seen.problems.append(f"{name} was not refused")

    def _investigate(self, name: str, *, second: str) -> None:
        with self._logged_in(name) as client:
            reference = "fire alarm, building B: is anybody inside?"
            incident = client.post("/v1/incidents", {"purpose": Purpose.SEARCH.value, "reference": reference})
            _say(f"{name} opens an incident: {reference}")
            asked = {"incident_id": incident["incident_id"], "cameras": ["camera1"], **self._span()}
            grant = client.post("/v1/requests", {**asked, "mode": Mode.VIEW.value})["grant"]["grant_id"]
            viewing = client.post(f"/v1/grants/{grant}/viewings", {"camera": "camera1"})
            film = io.BytesIO(b"".join(watched(client, viewing["playlist"])))
            seen = self._frames(film, "the viewing", len(film.getvalue()))
            self._seen.viewings += 1
            _say(f"{name} views camera1: {seen}; nothing of it is kept")
            request = client.post("/v1/requests", {**asked, "mode": Mode.EXPORT.value})
            with self._logged_in(second) as other:
                grant = other.post(f"/v1/requests/{request['request_id']}/approve")["grant_id"]
            self._export(client, grant, f"{second} approves as second person; {name} exports")

    def _export(self, client: GateClient, grant: str, who: str) -> None:
        """Export as `videostore export` does, and verify it as its reader does."""
        about = {"cameras": ["camera1"], "viewing_copy": False}
        export = client.post(f"/v1/grants/{grant}/exports", {"camera": "camera1"})
        with progress(hidden=True) as bar:
            (row,) = to_directory(client, [export], self._root / "export", about, bar)
        *films, manifest = map(Path, row["files"])
        seen = [self._frames(film, film.name, film.stat().st_size) for film in films]
        self._seen.exports += map(str, films)
        ledger = self._site.root / "ledger"
        findings = composition.verify_export(
            manifest,
            certificate=ledger / "export.crt",
            recorder_key=(ledger / "recorder.public.key").read_text(encoding="utf-8").strip(),
        )
        self._seen.problems += [f"{one.question} {one.detail}" for one in findings if not one.holds]
        _say(f"{who}: {', '.join(seen)}; it verifies without us ({manifest})")

    def _frames(self, film: Path | io.BytesIO, name: str, size_bytes: int) -> str:
        """Say how many frames a film shows, each after the one before it."""
        numbers = frame_numbers(film)
        broken = breaks(numbers, loop=len(stream().frames))
        if not numbers or broken:
            self._seen.problems.append(f"{name} has {len(numbers)} frames and {broken} breaks")
        return f"{len(numbers)} frames without a break, {show_size(size_bytes)}"

    def _span(self) -> dict[str, str]:
        """Return the newest seconds of camera1, and keep a sealed copy of a segment, as a backup might."""
        camera = self._site.cameras.find("camera1")
        now = composition.host_time()
        found = self._parts.catalogue.segments([camera.id], Span(now - timedelta(days=1), now))
        self._seen.sealed = found[-1], self._parts.store.get(found[-1].object_key)
        end = found[-1].span.end
        return {"start": max(found[0].span.start, end - _VIEWED).isoformat(), "end": end.isoformat()}

    def _prove_gone(self) -> None:
        assert self._seen.sealed is not None
        segment, sealed = self._seen.sealed

        def certified() -> bool:
            return str(segment.key_id) in {body["key_id"] for body in self._records(Event.CERTIFICATE)}

        self._until(certified, 2.0 * self._policy["keep"] + 30, "the viewed footage was not certified")
        if self._parts.store.size(segment.object_key) is not None:
            self._seen.problems.append(f"{segment.object_key} is still there")
        try:
            self._parts.keyrings[Kind.VIDEO].open(segment.key_id, sealed)
            self._seen.problems.append("a copy kept aside can still be opened")
        except KeyDestroyed as error:
            _say(f"a sealed copy kept aside opens no more: {error}")
        for body in self._records(Event.CERTIFICATE):
            proofs.verify_certificate(self._parts, body["id"])
        count = len(self._records(Event.CERTIFICATE))
        _say(f"{count} certificates: keys destroyed, objects confirmed absent")

    def _check_promises(self) -> None:
        broken = [finding for finding in composition.check(self._parts) if not finding.holds]
        self._seen.problems += [f"{finding.question} {finding.answer}" for finding in broken]
        _say("`videostore check` asks every promise of the live site" + (": all hold" if not broken else ""))

    def _scrape(self) -> None:
        for role, url in self._metrics().items():
            answer = httpx.get(url, trust_env=False)
            if not answer.is_success or "videostore_build_info" not in answer.text:
                self._seen.problems.append(f"no metrics from {role}")

    def _invite(self) -> None:
        gate = self._site.running()["gate"]["gate"]
        password = self._root / "password"
        password.write_text(_PASSWORD)
        authenticator = self._root / "authenticator"
        authenticator.write_text(self._secrets["alice"])
        console.print(
            f"\nTry in another terminal:\n"
            f"  export VIDEOSTORE_SITE={self._site.root} VIDEOSTORE_GATE={gate}\n"
            f"  videostore status\n"
            f"  videostore login alice --password-file {password} --authenticator {authenticator}\n"
            f"  videostore search --from 1m\n"
            f"  videostore play camera1 --from 20s\n"
            f"  videostore check; videostore ledger verify; videostore retention certificates list\n"
            f"  curl {self._metrics()['recorder']}\n",
            markup=False,
            soft_wrap=True,
        )

    def _stay(self) -> None:
        _say("the site goes on recording until Ctrl-C")
        try:
            while self._process.poll() is None:
                self._look()
                time.sleep(1)
        except KeyboardInterrupt:
            console.print("\nending")

    # --- looking ---

    def _look(self) -> None:
        for segment in self._parts.catalogue.live(limit=10_000):
            self._seen.segments[segment.object_key] = segment

    def _every_camera_has_footage(self) -> bool:
        self._look()
        ends: dict[Any, datetime] = {}
        starts: dict[Any, datetime] = {}
        for segment in self._seen.segments.values():
            ends[segment.camera_id] = max(ends.get(segment.camera_id, segment.span.end), segment.span.end)
            starts[segment.camera_id] = min(
                starts.get(segment.camera_id, segment.span.start), segment.span.start
            )
        return len(ends) == self._count and all(ends[one] - starts[one] >= _VIEWED for one in ends)

    def _records(self, event: Event) -> list[dict[str, Any]]:
        return [dict(record.body) for record in self._parts.ledger.records() if record.event is event]

    def _metrics(self) -> dict[str, str]:
        return {role: facts["metrics"] for role, facts in self._site.running().items() if "metrics" in facts}

    @contextmanager
    def _logged_in(self, name: str) -> Iterator[GateClient]:
        gate = self._site.running()["gate"]["gate"]
        authority = composition.own_certificate(self._site).authority
        with GateClient(gate, ca_file=str(authority)) as client:
            code = composition.current_code(self._secrets[name], now=composition.host_time())
            body = {"staff_id": name, "password": _PASSWORD, "code": code}
            token = client.post("/v1/login", body)["token"]
        with GateClient.of(Session(gate, name, token, str(authority))) as client:
            yield client

    def _until(self, what: Callable[[], bool], seconds: float, problem: str) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            if self._process.poll() is not None:
                raise GateUnavailable(f"the site ended: {problem}", hint=f"Its log: {self.log}")
            if time.monotonic() > deadline:
                raise PromiseBroken(f"{problem} within {seconds:.0f} s", hint=f"The log: {self.log}")
            if hasattr(self, "_parts"):
                self._look()
            time.sleep(0.2)


def _say(what: str) -> None:
    console.print(
        Text.assemble((f"{show_time(composition.host_time())[11:19]}  ", "dim"), what), soft_wrap=True
    )
