"""Port Anchor: a checkpoint that was taken away is there, whole, and stays. Every adapter runs this."""

from __future__ import annotations

import shutil
import uuid
from datetime import timedelta
from threading import Event, Thread

import pytest

from tests.fakes.clock import SettableClock
from tests.servers import until
from videostore import telemetry
from videostore.domain import ledger as domain
from videostore.domain.errors import ConfigInvalid, DiskNotWritable, PromiseBroken, StoreRefused
from videostore.ledger.anchors import Anchoring, DirectoryAnchor
from videostore.ledger.files import FileLedger
from videostore.ledger.lines import read_outside
from videostore.ledger.verify import verify
from videostore.signing import SigningKey
from videostore.store.locked import LockedBucket
from videostore.store.s3 import S3Store


class Ticking(SettableClock):
    def now(self):
        self.passes(timedelta(microseconds=1))
        return self.at


def ledger_in(root):
    """Return a ledger of three records, under a clock that goes on."""
    key = SigningKey.create(root / "ledger.key")
    ledger = FileLedger(root / "ledger", key=key, clock=Ticking())
    for number in range(3):
        ledger.append(domain.Event.VIEWING, actor="officer-1", body={"n": number})
    return ledger


class Share:
    """A directory that is the share."""

    def __init__(self, root):
        self.root = root / "share"
        self.root.mkdir()
        self.anchor = DirectoryAnchor(self.root)

    def kept(self):
        return {path.name: path.read_bytes() for path in self.root.iterdir()}


class Locked:
    """A bucket of a real store, made with object lock."""

    def __init__(self, server):
        self.bucket = server.as_admin(f"anchor-{uuid.uuid4().hex[:12]}")
        self.bucket.client.create_bucket(Bucket=self.bucket.name, ObjectLockEnabledForBucket=True)
        self.anchor = LockedBucket(self.bucket, keep_for=timedelta(days=1))

    def kept(self):
        store = S3Store(self.bucket)
        return {found.key: store.get(found.key) for found in store.objects()}


@pytest.fixture(params=["directory", "locked bucket"])
def place(request, tmp_path):
    return Share(tmp_path) if request.param == "directory" else Locked(request.getfixturevalue("s3_server"))


def test_what_is_kept_is_there_whole(place):
    place.anchor.keep("1.json", b"a checkpoint\n")
    place.anchor.keep("2.json", b"another\n")
    assert place.kept() == {"1.json": b"a checkpoint\n", "2.json": b"another\n"}
    assert sorted(place.anchor.kept()) == [("1.json", b"a checkpoint\n"), ("2.json", b"another\n")]


def test_what_the_longest_ledger_left_comes_first(place):
    for name in ("20261125T1200Z-9.json", "20261125T1300Z-10.json", "notes.json"):
        place.anchor.keep(name, name.encode())
    assert [name for name, _ in place.anchor.kept()] == [
        "20261125T1300Z-10.json", "20261125T1200Z-9.json", "notes.json",
    ]  # fmt: skip


def test_no_checkpoint_is_signed_over_a_ledger_that_was_put_back(place, tmp_path):
    """A machine's snapshot brings everything of then back but what a place elsewhere kept."""
    ledger = ledger_in(tmp_path)
    anchoring = Anchoring(ledger, {"there": place.anchor}, interval=timedelta(hours=1))
    anchoring.once()
    shutil.copytree(tmp_path / "ledger", tmp_path / "snapshot")
    ledger.append(domain.Event.STAFF_REVOKED, actor="operator", body={"staff_id": "alice"})
    newest, _ = anchoring.once()
    (earlier,) = set(place.kept()) - {newest.file_name}
    for decoy in (b"no checkpoint\n", place.kept()[earlier]):  # whoever may put there hides nothing by it
        place.anchor.keep(f"{newest.at:%Y%m%dT%H%M%SZ}-{len(decoy) + 999}.json", decoy)
    assert len(place.kept()) == 4
    shutil.rmtree(tmp_path / "ledger")
    shutil.copytree(tmp_path / "snapshot", tmp_path / "ledger")
    for number in range(3):  # shorter, of the same length and another, longer and another
        old = FileLedger(tmp_path / "ledger", key=SigningKey.load(tmp_path / "ledger.key"), clock=Ticking())
        with pytest.raises(PromiseBroken, match="4 records"):
            Anchoring(old, {"there": place.anchor}, interval=timedelta(hours=1)).once()
        old.append(domain.Event.VIEWING, actor="officer-1", body={"n": number})
    assert len(place.kept()) == 4


def test_what_somebody_else_signed_stops_no_ledger(place, tmp_path):
    (tmp_path / "theirs").mkdir()
    theirs = ledger_in(tmp_path / "theirs")
    theirs.append(domain.Event.VIEWING, actor="nobody", body={})
    Anchoring(theirs, {"there": place.anchor}, interval=timedelta(hours=1)).once()
    Anchoring(ledger_in(tmp_path), {"there": place.anchor}, interval=timedelta(hours=1)).once()


def test_a_checkpoint_from_a_place_convicts_a_ledger_whose_tail_is_gone(place, tmp_path):
    ledger = ledger_in(tmp_path)
    checkpoint, failures = Anchoring(ledger, {"there": place.anchor}, interval=timedelta(hours=1)).once()
    assert failures == {}
    (tmp_path / "fetched").mkdir()
    for name, line in place.kept().items():
        (tmp_path / "fetched" / name).write_bytes(line)
    outside = read_outside(tmp_path / "fetched")
    assert outside == [checkpoint]
    assert verify(tmp_path / "ledger", public_key=ledger.public_key, outside=outside).covered_outside == 3
    (tmp_path / "ledger" / "checkpoints.jsonl").unlink()
    lines = (tmp_path / "ledger" / "records.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "ledger" / "records.jsonl").write_bytes(b"".join(lines[:-1]))
    assert verify(tmp_path / "ledger", public_key=ledger.public_key).problems == []
    assert verify(tmp_path / "ledger", public_key=ledger.public_key, outside=outside).problems


def test_the_administrator_of_the_store_cannot_remove_it(s3_server):
    place = Locked(s3_server)
    place.anchor.keep("1.json", b"a checkpoint\n")
    client, name = place.bucket.client, place.bucket.name
    client.put_object(Bucket=name, Key="1.json", Body=b"forged\n")
    client.delete_object(Bucket=name, Key="1.json")  # a marker: the version stays
    versions = client.list_object_versions(Bucket=name)["Versions"]
    first = versions[-1]["VersionId"]
    with pytest.raises(StoreRefused), place.bucket.translated():
        client.delete_object(Bucket=name, Key="1.json", VersionId=first)
    assert client.get_object(Bucket=name, Key="1.json", VersionId=first)["Body"].read() == b"a checkpoint\n"
    assert sorted(place.anchor.kept()) == [("1.json", b"a checkpoint\n"), ("1.json", b"forged\n")], (
        "nothing is hidden from who compares"
    )


def test_a_bucket_without_object_lock_is_refused(s3_server):
    bucket = s3_server.as_admin(s3_server.bucket(f"plain-{uuid.uuid4().hex[:12]}"))
    with pytest.raises(StoreRefused):
        LockedBucket(bucket, keep_for=timedelta(days=1)).keep("1.json", b"a checkpoint\n")


def test_a_share_replaces_nothing_and_is_never_made(tmp_path):
    share = Share(tmp_path)
    share.anchor.keep("1.json", b"a checkpoint\n")
    with pytest.raises(DiskNotWritable):
        share.anchor.keep("1.json", b"forged\n")
    assert share.kept() == {"1.json": b"a checkpoint\n"}
    with pytest.raises(ConfigInvalid):
        DirectoryAnchor(tmp_path / "not mounted").keep("1.json", b"")
    with pytest.raises(ConfigInvalid):
        list(DirectoryAnchor(tmp_path / "not mounted").kept())
    assert not (tmp_path / "not mounted").exists()


def test_a_place_that_fails_stops_no_other_and_says_how_old_its_checkpoint_is(tmp_path):
    ledger, share = ledger_in(tmp_path), Share(tmp_path)
    places = {"gone": DirectoryAnchor(tmp_path / "gone"), "share": share.anchor}
    stop = Event()
    anchoring = Anchoring(ledger, places, interval=timedelta(milliseconds=10))
    thread = Thread(target=anchoring.run, args=(stop,))
    thread.start()
    try:
        until(lambda: len(share.kept()) > 1, seconds=60)
        (tmp_path / "gone").mkdir()
        until(lambda: any((tmp_path / "gone").iterdir()), seconds=60)
    finally:
        stop.set()
        thread.join()
    read = telemetry.REGISTRIES["retention"].get_sample_value
    at = read("videostore_ledger_anchored_timestamp_seconds", {"place": "share"})
    assert at == max(one.at.timestamp() for one in read_outside(share.root))
    for reading in (tmp_path / "gone", share.root):
        report = verify(tmp_path / "ledger", public_key=ledger.public_key, outside=read_outside(reading))
        assert report.problems == []
