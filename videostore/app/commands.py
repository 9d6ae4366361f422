"""What is typed at the command line of a site, put together from its parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from videostore.app.host import host_time
from videostore.app.keys import (
    RECORDER_PUBLIC_KEY,
    export_key,
    ledger_key,
    master_key,
    own_certificate,
    recorder_key,
    recorder_public_key,
)
from videostore.app.parts import Parts, sweep
from videostore.check import invariants, rows, segments
from videostore.check.subject import Finding
from videostore.config.credentials import resolve_credentials
from videostore.config.settings import DirectoryStoreSettings
from videostore.config.site import NewDirectory, Site, create_site
from videostore.domain.camera import Camera, CameraId, is_dropped
from videostore.domain.coverage import NOT_YET, State, Stretch, damaged, explain
from videostore.domain.errors import (
    CameraStreamInvalid,
    CameraUnreachable,
    ConfigInvalid,
    SiteError,
)
from videostore.domain.ledger import Event, Json, Record
from videostore.domain.retention import Kind
from videostore.domain.segment import EPOCH, GapReason, Segment, Span
from videostore.presence.register import amounts
from videostore.retention.plan import Planned
from videostore.retention.plan import plan as plan_hours
from videostore.signing import SigningKey
from videostore.store.directory import DirectoryStore

if TYPE_CHECKING:
    from videostore.catalogue.rebuild import Progress
    from videostore.ports import SoundInfo
    from videostore.recorder.onvif import Found, Offer

OPERATOR = "operator"
"""Actor of what is done at the command line of the site itself."""


def create(directory: Path, *, name: str, overrides: Mapping[str, str] | None = None) -> None:
    """Make a site, whole or not at all. ``overrides`` replaces configuration files by text."""
    with NewDirectory(directory) as building:
        create_site(building, name=name, overrides=overrides)
        site = Site.load(building)
        master_key(site, site.settings.keyring.master_key).renew()
        key = SigningKey.create(ledger_key(building))
        (building / "ledger").mkdir()
        (building / "ledger" / "public.key").write_text(f"{key.public}\n")
        recorder = SigningKey.create(recorder_key(building))
        (building / "ledger" / RECORDER_PUBLIC_KEY).write_text(f"{recorder.public}\n")
        export_key(site)
        if isinstance(site.settings.store, DirectoryStoreSettings):
            DirectoryStore.create(site.path(site.settings.store.path))
        own_certificate(site).renew(now=host_time())
        with Parts(site, role="retention") as parts:
            parts.ledger.append(Event.SITE_CREATED, actor=OPERATOR, body={"site": site.settings.site})
            parts.catalogue.totals()
            parts.clock.advance()
            report = sweep(parts).run()  # makes the first keys
        if report.errors:
            raise SiteError(report.errors[0], hint="Nothing was made.")


def record(site: Site, event: Event, /, **body: Json) -> Record:
    """Write a record of what was done at the command line."""
    with Parts(site) as parts:
        return parts.ledger.append(event, actor=OPERATOR, body=body)


def check_camera(site: Site, camera: Camera) -> dict[str, Any]:
    """Connect to a camera and return what it sends. Raises the CameraError that applies."""
    from videostore.recorder.choice import ChosenSource

    if is_dropped(camera):
        return _check_folder(site, camera)
    settings = site.settings.recorder
    credentials = resolve_credentials(camera.credentials, root=site.root)
    began = time.monotonic()
    source = ChosenSource(stall=settings.stall, now=host_time, root=site.root)
    stream = source.open(camera, credentials)
    frames, offset, keyframes = 0, None, 0
    try:
        sound = _sound(camera, stream.info.sound)
        for packet in stream.packets():
            if packet.sound:
                continue
            frames += 1
            keyframes += packet.keyframe
            if packet.claimed_at is not None:
                offset = round((packet.received_at - packet.claimed_at).total_seconds(), 3)
            if time.monotonic() - began > _LOOK.total_seconds() or (keyframes > 1 and offset is not None):
                break
    finally:
        stream.close()
    return {
        "camera": camera.name,
        "url": camera.url,
        "codec": stream.info.codec,
        "size": f"{stream.info.width_px}x{stream.info.height_px}",
        "sound": sound,
        "receiver": "{}: {}".format(*source.chosen(camera)),
        "frames_seen": frames,
        "clock_behind_seconds": offset,
    }


def _sound(camera: Camera, found: SoundInfo | None) -> str:
    if not camera.sound:
        return "off"  # and not asked for
    if found is None:
        raise CameraStreamInvalid(
            f"{camera.url} sends no sound that can be recorded",
            hint="Switch it on in the camera, as AAC or G.711, or leave it off here.",
        )
    return f"{found.codec}, {found.sample_rate_hz} Hz"


def discover_cameras(wait: timedelta) -> list[Found]:
    """Ask the network for cameras that speak ONVIF."""
    found: list[Found] = _onvif().discover(wait)
    return found


def camera_streams(site: Site, address: str, credentials: str) -> list[Offer]:
    """Ask the camera at ``HOST[:PORT]`` for its streams, by ONVIF. Raises the CameraError that applies."""
    offers: list[Offer] = _onvif().streams(address, resolve_credentials(credentials, root=site.root))
    return offers


def _onvif() -> ModuleType:
    try:
        from videostore.recorder import onvif
    except ImportError as error:
        raise ConfigInvalid(
            "ONVIF needs libraries that are not installed", hint="pip install 'videostore[onvif]'"
        ) from error
    return onvif


def choose_stream(offers: Sequence[Offer], wanted: str) -> Offer:
    """Return the ``main`` stream, the ``sub`` stream or that of a profile; the largest stands first."""
    known = {"main": offers[0], "sub": offers[-1], **{one.profile: one for one in offers}}
    if wanted not in known:
        raise CameraStreamInvalid(
            f"the camera has no stream {wanted!r}",
            hint=f"It has: {', '.join(one.profile for one in offers)}.",
        )
    return known[wanted]


def _check_folder(site: Site, camera: Camera) -> dict[str, Any]:
    """Say what waits for a camera whose footage comes as files."""
    name, _, part = camera.url.removeprefix("folder://").partition("/")
    with Parts(site) as parts:
        folder = next((one for one in parts.folders if one.name == name), None)
    if folder is None:
        raise CameraUnreachable(
            f"there is no drop folder {name!r}",
            hint=f"Add it to videostore.yaml: folders: {{{name}: {{path: …}}}}",
        )
    waiting = [path for path in folder.files() if folder.waits(path)]
    claims = [claim for claim in map(folder.claim, waiting) if claim and claim[0] == part]
    return {
        "camera": camera.name,
        "url": camera.url,
        "folder": str(folder.path),
        "files_waiting": len(claims),
        "files_of_no_camera": len(waiting) - sum(folder.claim(path) is not None for path in waiting),
    }


_LOOK = timedelta(seconds=5)


def plan(parts: Parts, moment: datetime) -> list[dict[str, Any]]:
    """Return what a sweep at ``moment`` would take: a row for an hour key and all that is sealed to it, and
    one for each camera whose footage goes before its key."""
    planned: list[Planned] = []
    for kind, policy in parts.policies().items():
        keys = list(parts.published(kind).keys())
        there = parts.catalogue.amounts(until=moment) if kind is Kind.VIDEO else amounts(parts.store)
        planned += plan_hours(policy, keys=keys, amounts=there, moment=moment)
    names = {camera.id: camera.name for camera in parts.site.cameras.all()}
    return [
        {
            "due_at": one.verdict.due_at,
            "deadline": one.verdict.deadline,
            "kind": one.kind.value,
            "key_id": str(one.key_id),
            "key_ends": one.camera_id is None,
            "camera": names.get(one.camera_id, str(one.camera_id)) if one.camera_id else None,
            "cameras": one.cameras,
            "objects": one.objects,
            "size_bytes": one.size_bytes,
            "reason": one.verdict.reason.value,
        }
        for one in planned
    ]


def verify_segments(parts: Parts, cameras: Sequence[CameraId], *, content: bool) -> list[segments.Finding]:
    """Compare what the recorder signed with the store; all cameras if none is named. Open runs are read
    before the ledger that they move to."""
    open_runs = parts.open_runs()
    known = {camera.id for camera in parts.site.cameras.all()}
    destroyed = {key.key_id for key in parts.published(Kind.VIDEO).keys() if key.destroyed_at is not None}
    return list(
        segments.verify(
            parts.ledger.records(),
            parts.store,
            public=recorder_public_key(parts.site.root),
            cameras=cameras or known | segments.cameras_in(parts.store),
            open_runs=open_runs,
            pending=_waiting(parts),
            destroyed=destroyed,
            content=content,
        )
    )


def _waiting(parts: Parts) -> Iterator[Segment]:
    """Yield the segments that wait, as they are when the first is asked for."""
    yield from parts.spool.pending()


def rebuild_catalogue(parts: Parts, tell: Callable[[Progress], None]) -> dict[str, int]:
    """Fill the catalogue from a listing of the store; ``tell`` hears how far it has come. What somebody
    condemned before it is due is live again."""
    from videostore.catalogue.rebuild import rebuild

    counts = rebuild(parts.catalogue, parts.store, tell=tell)
    policy, keys = parts.policies()[Kind.VIDEO], parts.published(Kind.VIDEO).keys()
    _, early = rows.early(parts.catalogue, policy, keys, parts.clock)
    revived = sum(parts.catalogue.revive(*hour) for hour in early)
    return {
        "found": counts.found,
        "added": counts.added,
        "not_segments": counts.strangers,
        "condemned_too_early": revived,
        "live_before": counts.before,
        "live_now": counts.after + revived,
    }


def check(parts: Parts, *, against: Sequence[Path] = ()) -> list[Finding]:
    """Ask every promise of the site. ``against`` are checkpoints besides those of its anchors."""
    return invariants.check(parts.subject(against))


def coverage(parts: Parts, camera: Camera, span: Span) -> list[Stretch]:
    """Return what became of every second of ``span``.

    A recorder goes on meanwhile: how far its record reaches is read first, and spool before catalogue, as
    footage moves. Else what moved in between were in neither.
    """
    reaches, now = parts.spool.progress(camera.id).end, host_time()
    held = [*parts.spool.held(camera.id)]
    gaps = [gap for _, gap in parts.spool.gaps()]
    held += parts.catalogue.segments([camera.id], span)
    gaps += parts.catalogue.gaps([camera.id], span)
    facts = [Stretch(one.span, State.FOOTAGE) for one in held]
    missing = [Stretch(gap.span, State.GAP, gap.reason.value) for gap in gaps if gap.camera_id == camera.id]
    facts += [*damaged(facts, [gap for gap in missing if gap.detail == GapReason.PACKET_LOSS]), *missing]
    first = min((fact.span.start for fact in facts), default=now)
    facts += _as_the_ledger_tells(parts, camera, span, first)
    expired = parts.policies()[Kind.VIDEO].expired_before(camera.id, now)
    facts.append(Stretch(Span(EPOCH, expired), State.EXPIRED))
    if span.end > now:
        facts.append(Stretch(Span(now, span.end), State.FUTURE))
    if reaches is not None and reaches < now and is_dropped(camera):
        facts.append(Stretch(Span(reaches, now), State.GAP, GapReason.CAMERA_UNREACHABLE.value))
    elif reaches is not None and reaches < now:
        if "recorder" not in parts.site.running():
            facts.append(Stretch(Span(reaches, now), State.GAP, GapReason.RECORDER_DOWN.value))
        elif now - reaches < parts.site.settings.recorder.segment + _OPEN:
            facts.append(Stretch(Span(reaches, now), State.OPEN))
    return explain(span, facts)


_OPEN = timedelta(minutes=2)
"""A running recorder has accounted for everything that is older than a segment and this."""


def _as_the_ledger_tells(parts: Parts, camera: Camera, span: Span, first: datetime) -> Iterator[Stretch]:
    """Yield what was deleted with a certificate, and when the camera was not recorded: before it was added,
    while it was disabled, and until its ``first`` connection."""
    idle_since: datetime | None = EPOCH
    for record in parts.ledger.records():
        if record.body.get("camera_id") != str(camera.id):
            continue
        change = record.body.get("change")
        if record.event is Event.CERTIFICATE:
            start, end = (datetime.fromisoformat(str(at)) for at in _pair(record.body["span"]))
            yield Stretch(Span(start, end), State.DELETED, str(record.body["id"]))
        elif record.event is Event.CAMERA_REMOVED or change == "disabled":
            idle_since = idle_since or record.at
        elif (record.event is Event.CAMERA_ADDED or change == "enabled") and idle_since is not None:
            yield Stretch(Span(idle_since, record.at), State.NOT_RECORDED)
            if record.event is Event.CAMERA_ADDED and span.start <= record.at < first:
                yield Stretch(Span(record.at, first), State.NOT_RECORDED, NOT_YET)
            idle_since = None
    if idle_since is not None and idle_since < span.end:
        yield Stretch(Span(idle_since, span.end), State.NOT_RECORDED)


def _pair(value: Json) -> Sequence[Json]:
    assert isinstance(value, list)
    return value
