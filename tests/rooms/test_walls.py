"""A store that deletes by itself, keeps nothing by force, and lets each role do its own work only."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from threading import Event as Stop
from uuid import UUID

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts.test_segment_store import put
from tests.servers import CONFIGURED, ROLE_KEYS, until
from videostore import telemetry
from videostore.config.site import MOST_KEEPS
from videostore.domain.errors import PromiseBroken
from videostore.domain.retention import Bound, Kind, Loaded, RetentionPolicy
from videostore.domain.segment import KeyId, ObjectKey, Segment, Sha256Hex, Span
from videostore.store.lifecycle import differences, expiry, rules
from videostore.store.provision import make_identities, set_up
from videostore.store.qualify import qualify, qualify_roles
from videostore.store.rights import ROLES
from videostore.store.s3 import S3Store
from videostore.store.walls import BREACHES, Wall, Walls

DAY, HOUR, MINUTE, SECOND = (timedelta(seconds=count) for count in (86400, 3600, 900, 1))
VIDEO = RetentionPolicy(Kind.VIDEO, 30 * DAY, MINUTE, HOUR)
ENTRY_EXIT = RetentionPolicy(Kind.ENTRY_EXIT, DAY, MINUTE, HOUR)
NOW = datetime.now(UTC)
RULES = rules(VIDEO, ENTRY_EXIT, today=NOW.date())
SEGMENT = ObjectKey(f"segments/{NOW:%Y-%m-%d}/camera/segment.mp4.age")
PASSAGE, STRANGER = ObjectKey("presence/hour/passage.age"), ObjectKey("elsewhere/face.jpg")


# --- the rules ---


@given(
    keep=st.timedeltas(min_value=2 * HOUR, max_value=30 * DAY),
    day=st.dates(min_value=date(2000, 1, 1), max_value=date(2100, 1, 1)),
    at=st.timedeltas(min_value=timedelta(0), max_value=DAY - timedelta(microseconds=1)),
)
def test_no_rule_deletes_before_a_deadline_and_none_a_day_after_the_last(keep, day, at):
    policy = RetentionPolicy(Kind.VIDEO, keep, MINUTE, HOUR)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    expires = expiry(policy, day)
    assert expires.time().isoformat() == "00:00:00"
    assert policy.deadline(KeyId.covering(midnight + at, HOUR)) <= expires
    assert expires - (midnight + DAY - HOUR + keep) < DAY


def test_there_is_a_rule_for_every_day_that_may_hold_something_and_for_a_year_to_come():
    days = {rule["ID"].removeprefix("videostore-day-") for rule in RULES if "day-" in rule["ID"]}
    assert days == {f"{NOW.date() + number * DAY}" for number in range(-31, 366)}
    assert len(RULES) < 1000  # the most that S3 takes


@given(
    keep=st.timedeltas(min_value=2 * HOUR, max_value=30 * DAY).map(lambda keep: keep // SECOND * SECOND),
    day=st.dates(min_value=date(2000, 1, 1), max_value=date(2100, 1, 1)),
)
def test_what_is_kept_for_less_has_a_rule_of_its_own_and_no_other_deletes_it(keep, day):
    policy = replace(VIDEO, shorter={UUID(int=7): keep} if keep < VIDEO.keep else {})
    last = datetime(day.year, day.month, day.day, 23, 30, tzinfo=UTC)
    segment = Segment(UUID(int=7), Span(last, last + MINUTE), 1, HOUR, 9, Sha256Hex("ab" * 32), keep)
    fitting = [
        rule["Expiration"]["Date"]
        for rule in rules(policy, ENTRY_EXIT, today=day, days_ahead=60)
        if "day-" in rule["ID"] and segment.object_key.startswith(rule["Filter"]["Prefix"])
    ]
    if keep == VIDEO.keep:  # nobody is kept for less
        assert fitting == []
        return
    assert len(fitting) == 1
    assert timedelta(0) <= fitting[0] - policy.deadline(segment.key_id) < DAY


def test_a_keep_that_nobody_has_any_more_keeps_its_rules_while_footage_of_it_is_there():
    loaded = Loaded(NOW - 9 * DAY, 30 * DAY, {UUID(int=7): 7 * DAY}, "before")
    for ended, there in ((NOW - 2 * DAY, True), (NOW - 32 * DAY, False)):
        policy = replace(VIDEO, bounds=[Bound(ended, loaded)])
        names = {rule["ID"] for rule in rules(policy, ENTRY_EXIT, today=NOW.date())}
        assert (f"videostore-day-{(NOW - 3 * DAY).date()}-0604800" in names) is there


def test_the_rules_of_as_many_keeps_as_a_site_can_have_fit_into_a_bucket():
    many = replace(VIDEO, shorter={UUID(int=days): days * DAY for days in range(22, 22 + MOST_KEEPS)})
    made = rules(many, ENTRY_EXIT, today=NOW.date())
    assert len(made) <= 1000
    wanted = {rule["ID"] for rule in rules(many, ENTRY_EXIT, today=NOW.date(), days_ahead=60)}
    assert wanted < {rule["ID"] for rule in made}, "provisioned again once in a while, not every day"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rule: None, "1 of 400 rules are missing, such as videostore-age"),
        (lambda rule: {**rule, "Status": "Disabled"}, "rule videostore-age was changed"),
        (lambda rule: {**rule, "Expiration": {"Days": 90}}, "rule videostore-age was changed"),
        (lambda rule: {**rule, "Filter": {"Prefix": "other/"}}, "rule videostore-age was changed"),
        (lambda rule: {**rule, "ID": "mine"}, "rule mine is not ours: Expiration"),
        (lambda rule: rule, None),
    ],
    ids=["missing", "disabled", "later", "elsewhere", "foreign", "as it was"],
)
def test_whatever_differs_from_the_policy_is_named(change, said):
    changed = [change(rule) if rule["ID"] == "videostore-age" else rule for rule in RULES]
    lines = list(differences(RULES, [rule for rule in changed if rule]))
    assert said in lines if said else lines == []


def test_a_store_that_aborts_uploads_by_itself_may_leave_that_out():
    as_minio = [{key: rule[key] for key in rule if "Abort" not in key} for rule in RULES]
    assert list(differences(RULES, as_minio)) == []


# --- a real store ---


@pytest.fixture(scope="module")
def bucket(s3_server):
    bucket = s3_server.as_admin(f"walls-{uuid.uuid4().hex[:12]}")
    assert dict(set_up(bucket, RULES))["bucket"].startswith("made")
    return bucket


def walls(bucket):
    return Walls(bucket, lambda: (VIDEO, ENTRY_EXIT))


def broken(bucket, **options):
    return sorted({one.wall for one in walls(bucket).drift(now=NOW, **options)})


def test_what_was_provisioned_has_not_drifted_and_provisioning_again_changes_nothing(bucket):
    put(S3Store(bucket), SEGMENT)
    assert dict(set_up(bucket, RULES))["bucket"] == "was there"
    assert broken(bucket) == []
    walls(bucket).must_stand()


def test_the_store_deletes_by_itself_what_retention_left(s3_server):
    bucket = s3_server.as_admin(f"expiry-{uuid.uuid4().hex[:12]}")
    dict(set_up(bucket, RULES))
    store, old = S3Store(bucket), NOW.date() - 31 * DAY
    late, young = ObjectKey(f"segments/{old}/camera/uploaded-late.mp4.age"), SEGMENT
    put(store, late)
    put(store, young)
    assert "complete" in s3_server.shell("s3.lifecycle.run-shard -shards 0-15 -s3 {s3} -runtime 90s")
    assert [found.key for found in store.objects()] == [young]


def test_deleted_bytes_stay_on_the_disk_of_the_store_until_vacuum(s3_server):
    """Why deletion alone is not believed, and the command of docs/guide/storage.md."""
    store, body = (
        S3Store(s3_server.as_admin(s3_server.bucket(f"disk-{uuid.uuid4().hex[:12]}"))),
        os.urandom(4096),
    )
    put(store, SEGMENT, body)

    def holds(path):
        with suppress(FileNotFoundError):  # the volume of a bucket of another test, gone meanwhile
            return body in path.read_bytes()

    def on_disk():
        return any(map(holds, s3_server.directory.glob("*.dat")))

    assert on_disk()
    store.delete([SEGMENT])
    assert store.size(SEGMENT) is None
    assert on_disk()

    def vacuumed():  # SeaweedFS tells its volumes of a deletion some time later
        s3_server.shell("lock\nvolume.vacuum -garbageThreshold=0\nunlock")
        return not on_disk()

    until(vacuumed, seconds=60)


def test_a_missing_rule_is_seen_by_the_hourly_look_and_told(s3_server):
    bucket = s3_server.as_admin(f"drift-{uuid.uuid4().hex[:12]}")
    dict(set_up(bucket, RULES[1:]))
    stop = Stop()
    stop.set()
    walls(bucket).watch(lambda: NOW, stop)
    told = {wall: telemetry.STORE_DRIFT.labels(wall=wall.value)._value.get() for wall in Wall}
    assert told == {wall: float(wall is Wall.LIFECYCLE) for wall in Wall}
    assert telemetry.STORE_LOOKED_AT._value.get() == NOW.timestamp()
    walls(bucket).must_stand()  # the backstop is missing, no promise is broken


def test_a_lock_that_somebody_set_is_a_breach_before_any_deadline(s3_server):
    bucket = s3_server.as_admin(f"locked-{uuid.uuid4().hex[:12]}")
    bucket.client.create_bucket(Bucket=bucket.name, ObjectLockEnabledForBucket=True)
    dict(set_up(bucket, RULES))
    store, second = S3Store(bucket), ObjectKey(SEGMENT.replace("segment.", "segment2."))
    put(store, SEGMENT)
    put(store, second)
    assert broken(bucket) == [Wall.LOCKLESS]
    walls(bucket).must_stand()
    bucket.client.put_object_legal_hold(Bucket=bucket.name, Key=second, LegalHold={"Status": "ON"})
    assert broken(bucket) == [Wall.LOCKLESS]  # only the first object of each camera is looked at every hour
    assert broken(bucket, objects=True) == [Wall.LOCKLESS, Wall.UNLOCKED]
    bucket.client.put_object_lock_configuration(
        Bucket=bucket.name,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 90}},
        },
    )
    assert Wall.UNLOCKED in broken(bucket)
    with pytest.raises(PromiseBroken, match="Days 90, Mode GOVERNANCE"):
        walls(bucket).must_stand()


def test_a_bucket_that_everybody_may_read_is_a_breach(s3_server):
    bucket = s3_server.as_admin(f"public-{uuid.uuid4().hex[:12]}")
    dict(set_up(bucket, RULES))
    put(S3Store(bucket), SEGMENT)
    statement = (
        '{"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::%s/*"]}'
    )
    bucket.client.put_bucket_policy(
        Bucket=bucket.name,
        Policy='{"Version": "2012-10-17", "Statement": [%s]}' % (statement % bucket.name),
    )
    assert broken(bucket) == [Wall.PRIVATE]
    with pytest.raises(PromiseBroken, match="anybody may read"):
        walls(bucket).must_stand()
    assert Wall.PRIVATE in BREACHES


def test_a_store_that_is_fit_is_qualified_and_nothing_is_left_of_it(bucket):
    before = [one["Name"] for one in bucket.client.list_buckets()["Buckets"]]
    findings = list(qualify(bucket, S3Store, RULES, now=datetime.now(UTC)))
    assert [one for one in findings if not one.ok] == []
    assert len(findings) == 10
    assert [one["Name"] for one in bucket.client.list_buckets()["Buckets"]] == before


class Forgetful(S3Store):
    """Says that it deleted, and did not."""

    def delete(self, keys):
        return {}


def test_a_store_that_is_not_fit_is_not_qualified(bucket):
    findings = {one.question: one for one in qualify(bucket, Forgetful, RULES, now=NOW + DAY)}
    unfit = {question for question, one in findings.items() if not one.ok}
    assert unfit == {
        "is what it deleted gone?",
        "does deletion reach all versions and markers?",
        "does deletion reach unfinished uploads?",
        "is its clock right?",
    }
    assert "50 of 50 are still there" in findings["is what it deleted gone?"].detail


# --- the rights of each role ---

ACTS = {
    "put": lambda c, b: c.put_object(Bucket=b, Key=SEGMENT, Body=b"2"),
    "put a passage": lambda c, b: c.put_object(Bucket=b, Key=PASSAGE, Body=b"2"),
    "put elsewhere": lambda c, b: c.put_object(Bucket=b, Key=STRANGER, Body=b"2"),
    "get": lambda c, b: c.get_object(Bucket=b, Key=SEGMENT),
    "get a passage": lambda c, b: c.get_object(Bucket=b, Key=PASSAGE),
    "get elsewhere": lambda c, b: c.get_object(Bucket=b, Key=STRANGER),
    "copy": lambda c, b: c.copy_object(Bucket=b, Key=SEGMENT, CopySource={"Bucket": b, "Key": PASSAGE}),
    "list": lambda c, b: c.list_objects_v2(Bucket=b, Prefix="segments/"),
    "list all": lambda c, b: c.list_objects_v2(Bucket=b),
    "list passages": lambda c, b: c.list_objects_v2(Bucket=b, Prefix="presence/"),
    "list versions": lambda c, b: c.list_object_versions(Bucket=b),
    "list uploads": lambda c, b: c.list_multipart_uploads(Bucket=b),
    "delete": lambda c, b: c.delete_object(Bucket=b, Key=STRANGER),
    "delete many": lambda c, b: deleted(c.delete_objects(Bucket=b, Delete={"Objects": [{"Key": STRANGER}]})),
    "hold": lambda c, b: c.put_object_legal_hold(Bucket=b, Key=SEGMENT, LegalHold={"Status": "ON"}),
    "tag": lambda c, b: c.put_object_tagging(Bucket=b, Key=SEGMENT, Tagging={"TagSet": []}),
    "publish": lambda c, b: c.put_object_acl(Bucket=b, Key=SEGMENT, ACL="public-read"),
    "publish all": lambda c, b: c.put_bucket_acl(Bucket=b, ACL="public-read"),
    "change rules": lambda c, b: c.delete_bucket_lifecycle(Bucket=b),
    "change versions": lambda c, b: c.put_bucket_versioning(
        Bucket=b, VersioningConfiguration={"Status": "Suspended"}
    ),
    "change rights": lambda c, b: c.delete_bucket_policy(Bucket=b),
    "remove the bucket": lambda c, b: c.delete_bucket(Bucket=b),
    "make a bucket": lambda c, b: c.create_bucket(Bucket=f"{b}-other"),
}
MAY = {
    "recorder": {"put", "put a passage"},
    "gate": {"get", "get a passage", "list passages"},
    "retention": {
        "list",
        "list all",
        "list passages",
        "list versions",
        "list uploads",
        "delete",
        "delete many",
    },
    "auditor": {"list", "list all", "list passages", "list versions", "list uploads"},
}


def deleted(answer):
    if answer.get("Errors"):
        raise ClientError({"Error": answer["Errors"][0]}, "DeleteObjects")


@pytest.fixture(scope="module", params=["iam", "configuration"])
def identities(request, s3_server):
    """The bucket as its administrator and as each role sees it, made in both ways of `store provision`."""
    name = CONFIGURED if request.param == "configuration" else f"rights-{uuid.uuid4().hex[:12]}"
    bucket = s3_server.as_admin(name)
    dict(set_up(bucket, RULES))
    keys = ROLE_KEYS if request.param == "configuration" else dict(make_identities(bucket, known=[]))
    return bucket, {role: replace(bucket, credentials=key) for role, key in keys.items()}


@pytest.mark.parametrize("role", ROLES)
def test_the_store_lets_each_role_do_its_work_and_refuses_everything_else(identities, role):
    bucket, roles = identities
    for key in (SEGMENT, PASSAGE, STRANGER):
        put(S3Store(bucket), key)
    answers = {}
    for what, act in ACTS.items():
        try:
            act(roles[role].client, bucket.name)
            answers[what] = "done"
        except ClientError as error:
            answers[what] = error.response["Error"]["Code"]
    assert answers == {what: "done" if what in MAY[role] else "AccessDenied" for what in ACTS}


def test_every_role_can_do_all_of_its_work(identities):
    bucket, roles = identities
    put(S3Store(roles["recorder"]), SEGMENT)
    assert S3Store(roles["gate"]).get(SEGMENT) == b"sealed"
    for role in ("retention", "auditor"):
        assert S3Store(roles[role]).size(SEGMENT) == len(b"sealed")
        assert broken(roles[role]) == []
    assert S3Store(roles["retention"]).delete([SEGMENT]) == {}
    assert S3Store(roles["retention"]).size(SEGMENT) is None
    for own in roles.values():
        assert S3Store(own).time() is not None
        walls(own).must_stand()
    assert [one for one in qualify_roles(bucket, roles) if not one.ok] == []


def test_a_role_with_a_right_too_many_is_found(identities):
    bucket, roles = identities
    swapped = {"recorder": roles["retention"]}
    assert {one.question for one in qualify_roles(bucket, swapped) if not one.ok} == {
        "may recorder put?",
        "is recorder refused to list?",
        "is recorder refused to delete?",
    }


def test_identities_are_made_once_and_keep_their_keys(s3_server):
    bucket = s3_server.as_admin(f"again-{uuid.uuid4().hex[:12]}")
    bucket.client.create_bucket(Bucket=bucket.name)
    first = dict(make_identities(bucket, known=["gate"]))
    assert set(first) == set(ROLES) - {"gate"}
    assert dict(make_identities(bucket, known=ROLES)) == {}
