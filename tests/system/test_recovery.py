"""Disasters: catalogue lost, host lost, store away for a day; and what is never in a backup."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from tests.premises import DAY, HOUR, LOBBY, Premises
from tests.system.commands import facts, said, videostore
from videostore import app as composition
from videostore.app.recovery import last_backup, restore
from videostore.backup.archive import pack
from videostore.config.site import Site
from videostore.domain.camera import Camera
from videostore.domain.errors import BackupInvalid, DiskError, DiskNotWritable, KeyringError, StoreUnavailable
from videostore.domain.ledger import Event
from videostore.domain.retention import Kind
from videostore.domain.segment import Gap, GapReason, KeyId, Span
from videostore.recorder.spool import facts_of
from videostore.recorder.upload import Uploader
from videostore.report.facts import EVENTS, fold
from videostore.sealing import new_identity, seal

EVER = Span(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
TEN_SECONDS = timedelta(seconds=10)


def record(parts, camera, *, number, movie=b"a movie"):
    """Store a segment of now, as a recorder would."""
    start = datetime.now(UTC) + number * TEN_SECONDS
    key_id = KeyId.covering(start, HOUR)
    sealed = seal(movie, recipient=parts.published(Kind.VIDEO).recipient(key_id))
    span = Span(start, start + TEN_SECONDS)
    segment = facts_of(sealed, camera_id=camera, span=span, sequence=number, key_id=key_id)
    parts.store.put(segment.object_key, sealed, sha256=segment.sha256)
    parts.catalogue.add(segment)
    return segment


@pytest.fixture
def site(tmp_path):
    """A site whose store is on another disk, with footage and a gap."""
    root, camera = tmp_path / "site", uuid4()
    settings = f"version: 1\nsite: test\nstore: {{kind: directory, path: {tmp_path / 'disk'}}}\n"
    composition.create(root, name="test", overrides={"videostore.yaml": settings})
    (root / "secrets" / "lobby").write_text("officer:open sesame")
    (root / "secrets" / "lobby").chmod(0o600)
    Site.load(root).cameras.add(Camera(camera, "lobby", "rtsp://127.0.0.1:1/lobby"))
    with composition.Parts(Site.load(root)) as parts:
        segments = [record(parts, camera, number=number) for number in range(3)]
        gap = Gap(
            Span(segments[0].span.start - HOUR, segments[0].span.start), camera, GapReason.RECORDER_DOWN
        )
        parts.catalogue.add_gap(gap)
    return root


def footage(root):
    with composition.Parts(Site.load(root)) as parts:
        ids = [camera.id for camera in parts.site.cameras.all()]
        return parts.catalogue.segments(ids, EVER), parts.catalogue.gaps(ids, EVER)


def test_a_lost_catalogue_is_made_again_from_the_store(site):
    segments, _ = footage(site)
    for path in site.glob("catalogue.db*"):
        path.unlink()
    assert footage(site) == ([], [])
    assert facts("catalogue", "rebuild", site=site)["added"] == 3
    assert footage(site)[0] == segments


def test_what_somebody_wrote_into_the_catalogue_is_put_right_by_the_store(site):
    segments, gaps = footage(site)
    said = ("state = 1", "state = 2", "end_us = 0")
    with closing(sqlite3.connect(site / "catalogue.db")) as database, database:
        for segment, one in zip(segments, said, strict=True):
            database.execute(f"UPDATE segments SET {one} WHERE object_key = ?", [segment.object_key])
    assert footage(site)[0] == []
    assert [row["invariant"] for row in unanswered(site)] == [3, 5]
    done = facts("catalogue", "rebuild", site=site)
    assert (done["added"], done["condemned_too_early"], done["live_now"]) == (1, 2, 3)
    assert footage(site) == (segments, gaps)
    assert list(unanswered(site)) == []


def test_a_lost_host_comes_back_shows_nothing_until_reconciled_and_opens_nothing_of_before(site, tmp_path):
    said("backup", "key", tmp_path / "kept.key")
    recipient = (tmp_path / "kept.key").read_text().splitlines()[0].removeprefix("# public key: ")
    with composition.Parts(Site.load(site)) as parts:
        made_keys = composition.sweep(parts).run().keys_created
        keys = {kind.value: [str(key.key_id) for key in ring.keys()] for kind, ring in parts.keyrings.items()}
    made = facts("backup", "create", tmp_path / "site.backup", "--recipient", recipient, site=site)
    assert last_backup(site).isoformat() == made["made_at"]
    before, gaps = footage(site)
    said("camera", "rename", "lobby", "door", site=site)
    checkpoint = tmp_path / "checkpoint.json"
    checkpoint.write_text(said("ledger", "checkpoint", "--json", site=site))
    shutil.rmtree(site)

    said("backup", "restore", tmp_path / "site.backup", site, "--identity", tmp_path / "kept.key")
    assert (site / "secrets" / "lobby").read_text() == "officer:open sesame"
    assert last_backup(site).isoformat() == made["made_at"], "what it came from is its newest backup"
    refused = videostore("camera", "rename", "lobby", "door", site=site)
    assert (refused.returncode, "backup reconcile" in refused.stderr) == (55, True)
    done = facts("backup", "reconcile", "--checkpoint", checkpoint, site=site)
    assert (done["records"], done["records_lost"]) == (made["records"], 1)
    assert (done["segments_found"], done["gaps"]) == (3, 1)
    assert done["keys_lost"] == sum(map(len, keys.values())) >= made_keys
    assert footage(site) == (before, gaps)

    with composition.Parts(Site.load(site)) as parts:
        (note,) = [one for one in parts.ledger.records() if one.event is Event.SITE_RECONCILED]
        assert (note.body["records_lost"], note.body["keys_lost"]) == (1, keys)
        month = fold(parts.ledger.find(*EVENTS), (), span=EVER, now=note.at + 40 * DAY)
        assert (month.overdue, month.kept) == (0, True), "nobody waits for the end of keys that are gone"
        report = composition.sweep(parts).run()  # makes keys for new footage
        assert report.errors == []
        with pytest.raises(KeyringError):
            parts.keyrings[Kind.VIDEO].open(before[0].key_id, parts.store.get(before[0].object_key))
    with composition.Parts(Site.load(site)) as parts:
        new = [key for ring in parts.keyrings.values() for key in ring.keys() if key.destroyed_at is None]
        assert len(new) == report.keys_created, "a new key of the name of a lost one is not buried with it"
    assert facts("ledger", "verify", site / "ledger")["records"] > done["records"]
    assert {row["holds"] for row in json.loads(said("check", "--json", site=site))} == {True}


def test_who_removes_the_mark_of_a_restored_site_skips_nothing_that_an_auditor_asks(site, tmp_path):
    """Its ledger takes records then; what the backup lacks shows all the same."""
    anchor = tmp_path / "share"
    anchor.mkdir()
    settings = (site / "videostore.yaml").read_text()
    (site / "videostore.yaml").write_text(
        f"{settings}ledger: {{anchors: {{share: {{kind: directory, path: {anchor}}}}}}}\n"
    )
    identity, recipient = new_identity()
    with composition.Parts(Site.load(site)) as parts:
        composition.sweep(parts).run()
    composition.back_up(Site.load(site), tmp_path / "backup", recipient=recipient)
    with composition.Parts(Site.load(site)) as parts:
        parts.ledger.append(Event.LOSS, actor="retention", body={"what": "the backup has not heard of"})
        parts.anchoring.once()
    shutil.rmtree(site)
    restore(tmp_path / "backup", site, identity=identity)
    (site / "restored.json").unlink()
    broken = {row["invariant"] for row in unanswered(site)}
    assert broken == {5, 8}, "keys that ended without a record, and a checkpoint that pins more"
    gate = videostore("run", "gate", site=site)
    assert (gate.returncode, "restore the site" in gate.stderr) == (70, True)
    with composition.Parts(Site.load(site)) as parts:
        parts.ledger.append(Event.CAMERA_ADDED, actor="operator", body={})
        parts.ledger.append(Event.CAMERA_ADDED, actor="operator", body={})
    assert {row["invariant"] for row in unanswered(site)} == {5, 8}, "longer again, and another history"


def unanswered(site):
    done = videostore("check", "--json", site=site)
    return [row for row in json.loads(done.stdout.splitlines()[-1]) if not row["holds"]]


def test_no_key_of_an_hour_is_in_a_backup(site, tmp_path):
    identity, recipient = new_identity()
    composition.back_up(Site.load(site), tmp_path / "backup", recipient=recipient)
    composition.restore(tmp_path / "backup", tmp_path / "new", identity=identity)
    secrets = {path.read_bytes() for path in (site / "keyring").rglob("*") if path.is_file()}
    restored = {path for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert len(secrets) > 90
    assert not {path for path in restored if path.read_bytes() in secrets}
    assert {path.name for path in (tmp_path / "new" / "keyring").rglob("*")} == {"master.key"}  # a new one
    assert {(tmp_path / "new" / name).stat().st_mode & 0o777 for name in ("secrets", "staff")} == {0o700}


@pytest.mark.parametrize("harm", [lambda data: data[:-1], lambda data: data[:-40] + bytes(40), lambda _: b""],
                         ids=["cut", "altered", "empty"])  # fmt: skip
def test_a_harmed_backup_makes_no_site(site, tmp_path, harm):
    identity, recipient = new_identity()
    file = tmp_path / "backup"
    composition.back_up(Site.load(site), file, recipient=recipient)
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(BackupInvalid):
        composition.restore(file, tmp_path / "new", identity=identity)
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_read_leaves_no_backup_that_looks_like_one(site, tmp_path):
    _, recipient = new_identity()
    with pytest.raises(DiskNotWritable):
        pack([("a", site / "cameras.yaml"), ("b", site / "absent")], tmp_path / "backup", recipient=recipient)
    with pytest.raises(DiskError):
        composition.back_up(Site.load(site), tmp_path / "not mounted" / "backup", recipient=recipient)
    assert last_backup(site) is None, "a backup that did not come to its end is none"
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == []


def test_a_day_without_the_store_costs_no_footage_and_no_deadline(tmp_path):
    premises = Premises(tmp_path)
    premises.sweep().run()
    old = premises.record(0)
    uploader = Uploader(
        premises.spool, premises.store, premises.catalogue, premises.ledger, now=premises.clock.now
    )
    premises.clock.passes(29 * DAY + 12 * HOUR)
    premises.sweep().run()
    premises.store.down, recorded = True, []
    for hour in range(24):
        start = premises.clock.now()
        key_id = KeyId.covering(start, HOUR)
        sealed = seal(b"a movie", recipient=premises.published().recipient(key_id))
        segment = facts_of(
            sealed, camera_id=LOBBY, span=Span(start, start + TEN_SECONDS), sequence=hour, key_id=key_id
        )
        premises.spool.commit(segment, sealed, groups=[])
        recorded.append(segment)
        with pytest.raises(StoreUnavailable):
            uploader.upload_all()
        premises.clock.passes(HOUR)
        premises.sweep().run()
    with pytest.raises(KeyringError):
        premises.keyrings[Kind.VIDEO].open(old.key_id, premises.store.bodies[old.object_key][0])
    premises.store.down = False
    assert uploader.upload_all() == 24
    assert premises.sweep().run().errors == []
    assert premises.catalogue.segments([LOBBY], EVER) == recorded
    assert [one["segments"] for one in premises.events(Event.CERTIFICATE)] == [1]
