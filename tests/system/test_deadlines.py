"""How a site stands against its deadlines, as its operator and an auditor ask at the command line."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event as Stop
from threading import Thread

import pytest
from botocore.exceptions import ClientError

from tests.servers import ACCESS, SECRET, until
from tests.system.commands import facts, make_site, said, videostore
from videostore.app import Parts, check, create
from videostore.app.deadlines import check_listing
from videostore.app.parts import sweep
from videostore.app.recorder import recording_of
from videostore.config.site import Site
from videostore.domain.clock import Doubt
from videostore.domain.errors import PromiseBroken, PromiseUnproven, RequestInvalid
from videostore.domain.ledger import Event, canonical
from videostore.domain.retention import Kind
from videostore.domain.segment import KeyId, Span
from videostore.recorder.spool import facts_of
from videostore.retention.service import RetentionService
from videostore.sealing import seal
from videostore.store.bucket import Bucket
from videostore.store.provision import make_identities
from videostore.store.rights import ROLES

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    directory = make_site(tmp_path_factory.mktemp("deadlines") / "site")
    for name in ("lobby", "entrance"):
        said("camera", "add", name, f"rtsp://192.0.2.1/{name}", "--no-check", site=directory)
    return directory


@pytest.fixture
def site(template, tmp_path):
    return shutil.copytree(template, tmp_path / "site")


def record(site, name):
    """Store a segment of a camera as its recorder would, now."""
    with Parts(Site.load(site)) as parts:
        camera = next(one for one in parts.site.cameras.all() if one.name == name)
        start = datetime.now(UTC)
        key_id = parts.policies()[Kind.VIDEO].key_id(camera.id, start)
        sealed = seal(b"a movie", recipient=parts.published(Kind.VIDEO).recipient(key_id))
        segment = facts_of(
            sealed, camera_id=camera.id, span=Span(start, start + SECOND), sequence=0, key_id=key_id
        )
        parts.store.put(segment.object_key, sealed, sha256=segment.sha256)
        parts.catalogue.add(segment)
        return segment


def keep_of_entrance(site, camera_id, keep):
    """Edit the policy, as the responsible person does."""
    path = site / "policies" / "retention.yaml"
    cameras = json.dumps({str(camera_id): keep} if keep else {})
    path.write_text(re.sub(r"(?m)^  cameras: .*$", f"  cameras: {cameras}", path.read_text()))


def test_a_recorder_stamps_what_it_records_with_the_earliest_that_the_time_may_be(tmp_path):
    """Its host is two days ahead of the last trusted time: so much longer its footage would live."""
    site = make_site(tmp_path / "site")
    with Parts(Site.load(site)) as parts:
        mark = parts.clock.advance().earliest - 2 * DAY
    (site / "clock.json").write_text(json.dumps({"trusted": mark.isoformat(), "confirmations": 0}))
    with Parts(Site.load(site), role="recorder") as parts:
        recording = recording_of(parts, look=lambda *_: None)
        assert mark <= recording.now() < mark + HOUR


def test_a_plan_counts_what_goes_when_also_of_a_camera_that_was_kept_for_less(site):
    lobby, entrance = record(site, "lobby"), record(site, "entrance")
    keep_of_entrance(site, entrance.camera_id, "7d")
    said("retention", "status", site=site)
    keep_of_entrance(site, entrance.camera_id, None)
    week, month = (entrance.key_id.start + days * DAY for days in (7, 30))
    before = facts("retention", "plan", "--at", (week - HOUR).isoformat(), site=site)
    assert (before["objects"], [row for row in before["planned"] if row["kind"] == "video"]) == (0, [])
    after = facts("retention", "plan", "--at", week.isoformat(), site=site)
    (row,) = [row for row in after["planned"] if row["kind"] == "video"]
    assert (row["camera"], row["key_ends"], row["objects"]) == ("entrance", False, 1)
    assert row["size_bytes"] == after["size_bytes"] == entrance.size_bytes
    assert datetime.fromisoformat(row["deadline"]) == week
    last = facts("retention", "plan", "--at", month.isoformat(), site=site)
    assert (last["objects"], last["size_bytes"]) == (2, lobby.size_bytes + entrance.size_bytes)
    assert "entrance, kept for less" in said("retention", "plan", "--at", month.isoformat(), site=site)


def test_an_auditor_with_a_copy_of_the_ledger_judges_by_the_policies_on_record(site, tmp_path):
    """A camera was kept for a day, and its keep was lengthened since: what it left goes by the day, and the
    files do not say so."""
    entrance = record(site, "entrance")
    for keep in ("1d", None):
        keep_of_entrance(site, entrance.camera_id, keep)
        with Parts(Site.load(site)) as parts:
            parts.policies()  # whoever sees a policy first puts it on record
    with Parts(Site.load(site)) as parts:
        start = entrance.key_id.start - 2 * DAY
        span, key_id = Span(start, start + SECOND), KeyId(start, HOUR)
        late = facts_of(b"late", camera_id=entrance.camera_id, span=span, sequence=0, key_id=key_id)
        parts.store.put(late.object_key, b"late", sha256=late.sha256)
        checkpoint = parts.ledger.checkpoint()
        copy, kept = tmp_path / "copy", tmp_path / "kept.json"
        shutil.copytree(site / "ledger", copy)
        kept.write_bytes(canonical(checkpoint.to_json()) + b"\n")
        asked = ("check", "--listing", "--ledger", copy, "--against", kept, "--json")
        done = videostore(*asked, site=site)
        younger, honest, verified = json.loads(done.stdout.splitlines()[-1])
        assert (done.returncode, younger["evidence"]) == (PromiseBroken.exit_code, [late.object_key])
        assert (honest["holds"], verified["holds"]) == (True, True)
        assert (
            "1 checkpoints kept elsewhere compared; the store is judged by its policies" in verified["answer"]
        )
        assert [one.holds for one in check_listing(parts)] == [True, True], "the files do not tell"
        lines = (copy / "records.jsonl").read_bytes().splitlines(keepends=True)
        (copy / "records.jsonl").write_bytes(b"".join(lines[:-1]))
        *_, cut = check_listing(parts, ledger=copy, against=[kept])
        assert (cut.holds, "its tail is gone" in str(cut.evidence)) == (False, True)
        parts.store.delete([late.object_key])


def test_the_status_says_how_old_the_oldest_footage_is_and_that_something_is_late(site):
    segment = record(site, "lobby")
    found = facts("retention", "status", site=site)
    assert (found["clock"], found["ceiling_seconds"], found["keep_seconds"]) == ("believed", 2592000, 2592000)
    assert found["keys_past_their_deadline"] == found["segments_being_deleted"] == 0
    assert 0 <= found["oldest_footage_age_seconds"] < 3600
    assert datetime.fromisoformat(found["next_due"]) > datetime.now(UTC)
    assert datetime.fromisoformat(found["nothing_readable_before"]) <= segment.key_id.start
    month_ago = segment.span.start - 30 * DAY - SECOND
    with Parts(Site.load(site)) as parts:
        span = Span(month_ago, month_ago + SECOND)
        key_id = parts.policies()[Kind.VIDEO].key_id(segment.camera_id, month_ago)
        late = facts_of(b"late", camera_id=segment.camera_id, span=span, sequence=0, key_id=key_id)
        parts.catalogue.add(late)
    done = videostore("retention", "status", "--json", site=site)
    assert done.returncode == PromiseBroken.exit_code
    assert json.loads(done.stdout)["oldest_footage_age_seconds"] >= 2592000


def test_a_policy_that_is_tightened_reaches_retention_and_gate_while_they_run(tmp_path):
    """Footage of ten days ago, kept for 30; somebody shortens its camera's keep to a week in the file."""
    site = make_site(tmp_path / "site")
    said("camera", "add", "entrance", "rtsp://192.0.2.1/entrance", "--no-check", site=site)
    stop = Stop()
    with Parts(Site.load(site), role="retention") as parts, Parts(Site.load(site), role="gate") as gate:
        (camera,) = parts.site.cameras.all()
        start = parts.clock.now().replace(minute=30, second=0, microsecond=0) - 10 * DAY
        span, key_id = Span(start, start + SECOND), KeyId.covering(start, HOUR)
        segment = facts_of(b"sealed", camera_id=camera.id, span=span, sequence=0, key_id=key_id)
        parts.store.put(segment.object_key, b"sealed", sha256=segment.sha256)
        parts.catalogue.add(segment)
        assert sweep(parts).run().segments_deleted == 0
        assert gate.policies()[Kind.VIDEO].deadline(key_id, camera_id=camera.id) == key_id.start + 30 * DAY
        running = Thread(
            target=RetentionService(sweep(parts), clock=parts.clock, interval=SECOND).run, args=[stop]
        )
        running.start()
        try:
            keep_of_entrance(site, camera.id, "7d")
            until(lambda: list(parts.ledger.find(Event.CERTIFICATE)), seconds=60)
        finally:
            stop.set()
            running.join()
        assert gate.policies()[Kind.VIDEO].deadline(key_id, camera_id=camera.id) == key_id.start + 7 * DAY
        (certificate,) = parts.ledger.find(Event.CERTIFICATE)
        assert certificate.body["camera_id"] == str(camera.id)
        assert parts.store.size(segment.object_key) is None


@pytest.fixture
def wrong_clock(tmp_path):
    """A site whose store refuses everything and says that it is two hours later."""

    class Store(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response_only(403)
            self.send_header("Date", formatdate(datetime.now(UTC).timestamp() + 7200, usegmt=True))
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        site = make_site(tmp_path / "site")
        settings = {"kind": "s3", "endpoint": f"http://127.0.0.1:{server.server_port}", "bucket": "wrong",
                    "credentials": "file:secrets/s3"}  # fmt: skip
        (site / "videostore.yaml").write_text(f"version: 1\nsite: test\nstore: {json.dumps(settings)}\n")
        (site / "secrets" / "s3").write_text("access:secret\n")
        (site / "secrets" / "s3").chmod(0o600)
        yield site
        server.shutdown()


def test_an_operator_overrules_a_store_whose_clock_is_wrong_by_name_and_on_record(wrong_clock):
    confirm = ("retention", "confirm-clock", "--yes")
    refused = videostore(*confirm, site=wrong_clock)
    assert refused.returncode == RequestInvalid.exit_code
    assert "the store" in refused.stderr
    assert "--overrule-store" in refused.stderr
    assert "confirmed" in said(*confirm, "--overrule-store", site=wrong_clock)
    with Parts(Site.load(wrong_clock)) as parts:
        (record,) = parts.ledger.find(Event.CLOCK_CONFIRMED)
        host, store = (datetime.fromisoformat(str(record.body[name])) for name in ("host", "store"))
        assert abs(store - host - 2 * HOUR) < timedelta(minutes=1)
        reading = parts.clock.read()
        assert reading.doubt is Doubt.WITNESS_DISAGREES
        assert reading.earliest < store - HOUR < reading.latest, "destroyed by the host, opened by the later"


def test_an_auditor_with_the_right_to_list_alone_judges_the_store(s3_server, tmp_path):
    """With what `store provision` made for him, and no key, ledger, catalogue or mark of the clock."""
    bucket = f"audit-{uuid.uuid4().hex[:12]}"
    own = tmp_path / "site"
    said("init", own, "--name", "test")
    settings = {
        "kind": "s3",
        "endpoint": s3_server.endpoint,
        "bucket": bucket,
        "credentials": "file:secrets/s3",
    }
    (own / "videostore.yaml").write_text(f"version: 1\nsite: test\nstore: {json.dumps(settings)}\n")
    (own / "secrets" / "s3").write_text(f"{ACCESS}:{SECRET}\n")
    (own / "secrets" / "s3").chmod(0o600)
    said("store", "provision", "--identities", "iam", site=own)
    auditor = tmp_path / "auditor"
    for name in ("cameras.yaml", "policies", "secrets/store-auditor"):
        (auditor / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (own / name).is_dir() else shutil.copy)(own / name, auditor / name)
    settings["credentials"] = "file:secrets/store-auditor"
    (auditor / "videostore.yaml").write_text(f"version: 1\nsite: test\nstore: {json.dumps(settings)}\n")
    there = sorted(auditor.rglob("*"))

    def listing():
        done = videostore("check", "--listing", "--json", site=auditor)
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    client = s3_server.client()
    now = datetime.now(UTC)
    for days in (1, 29):
        client.put_object(Bucket=bucket, Key=named(now - days * DAY), Body=b"sealed")
    code, (younger, honest) = listing()
    assert (code, younger["holds"], honest["holds"]) == (0, True, True), younger
    assert younger["answer"].startswith("2 objects, oldest frame 29.0 days")
    late = named(now - 31 * DAY)
    client.put_object(Bucket=bucket, Key=late, Body=b"sealed")
    client.put_object(Bucket=bucket, Key=named(now, keep="-9999999"), Body=b"sealed")
    code, (younger, honest) = listing()
    assert code == PromiseBroken.exit_code
    assert (younger["holds"], younger["evidence"]) == (False, [late])
    assert (honest["holds"], honest["answer"]) == (False, "1 names claim what no name may")
    assert sorted(auditor.rglob("*")) == there, "nothing was made, no ledger was asked for"
    with pytest.raises(ClientError, match="AccessDenied"):
        auditor_client(s3_server, auditor).get_object(Bucket=bucket, Key=late)


def test_check_compares_with_a_locked_bucket_or_says_that_it_cannot_read_it(s3_server, tmp_path):
    """Who may list there and no more is told so: that is neither a yes nor a no."""
    bucket = s3_server.as_admin(f"vault-{uuid.uuid4().hex[:12]}")
    bucket.client.create_bucket(Bucket=bucket.name, ObjectLockEnabledForBucket=True)
    others = [role for role in ROLES if role != "auditor"]
    keys = {"s3": (ACCESS, SECRET), "lister": dict(make_identities(bucket, known=others))["auditor"]}
    site = tmp_path / "site"
    create(site, name="test")
    for name, key in keys.items():
        (site / "secrets" / name).write_text(":".join(key))
        (site / "secrets" / name).chmod(0o600)
    vault = {"kind": "s3", "endpoint": s3_server.endpoint, "bucket": bucket.name,
             "credentials": "file:secrets/s3", "locked": "1d"}  # fmt: skip
    text = (site / "videostore.yaml").read_text()

    def anchored(**auditor):
        place = json.dumps({"anchors": {"vault": vault | auditor}})
        (site / "videostore.yaml").write_text(f"{text}ledger: {place}\n")
        return Parts(Site.load(site))

    with anchored() as parts:
        sweep(parts).run()
        assert parts.anchoring.once()[1] == {}
        findings = check(parts)
        assert all(one.holds for one in findings), findings
        assert [one for one in findings if "; 1 checkpoints kept elsewhere compared" in one.answer]
    with anchored(auditor="file:secrets/lister") as parts:
        done = videostore("check", "--json", site=site)
        assert done.returncode == PromiseUnproven.exit_code, done.stderr
        listed = [one.to_json() for one in check_listing(parts, ledger=site / "ledger")]
        for rows in (json.loads(done.stdout.splitlines()[-1]), listed):
            (unread,) = [row for row in rows if row["holds"] is None]
            assert unread["question"] == "Does the ledger agree with vault?"
            assert "refused: AccessDenied" in unread["answer"]
            assert "ledger.anchors.vault.auditor" in unread["evidence"][0]
            assert all(row["holds"] for row in rows if row is not unread)
    records = site / "ledger" / "records.jsonl"
    records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[:-1]))
    for name in ("checkpoints.jsonl", "records.index"):
        (site / "ledger" / name).unlink(missing_ok=True)
    with anchored() as parts:
        cut = check(parts) + check_listing(parts, ledger=site / "ledger")
        assert [one.holds for one in cut if "its tail is gone" in str(one.evidence)] == [False, False]


def named(start, keep=""):
    """Return the key of an object as a listing shows it."""
    name = f"{start:%Y%m%dT%H%M%S}.000000Z_000010000000_0000000001_03600{keep}_{'a' * 64}.mp4.age"
    return f"segments/{start:%Y-%m-%d}{keep}/{uuid.uuid4()}/{name}"


def auditor_client(server, auditor):
    access, secret = (auditor / "secrets" / "store-auditor").read_text().strip().split(":")
    return Bucket("any", endpoint=server.endpoint, credentials=(access, secret)).client
