"""Configuration is strict, says what is wrong in one line, and leaves nothing half-made behind."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from threading import Thread
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videostore.config.credentials import resolve_credentials
from videostore.config.durations import parse_duration, show_duration
from videostore.config.follow import Followed
from videostore.config.settings import RetentionFile
from videostore.config.site import MOST_KEEPS, NewDirectory, Site, create_site
from videostore.domain.camera import Camera
from videostore.domain.errors import (
    CameraExists,
    CameraUnknown,
    ConfigInvalid,
    CredentialsInvalid,
    KeepTooLong,
    SiteBusy,
    SiteError,
    SiteExists,
    SiteMissing,
    SiteTooNew,
)
from videostore.domain.retention import Kind

DAY = timedelta(days=1)
RETENTION, ACCESS = "policies/retention.yaml", "policies/access.yaml"


@pytest.fixture
def site(tmp_path):
    root = tmp_path / "site"
    root.mkdir()
    create_site(root, name="geneva")
    return Site.load(root)


def edit(site, file, old, new):
    path = site.root / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_templates_are_valid_and_keep_what_the_resolution_allows(site):
    policies = site.retention()
    assert policies[Kind.VIDEO].keep == timedelta(days=30)
    assert policies[Kind.ENTRY_EXIT].keep == timedelta(hours=24)
    assert site.settings.site == "geneva"


def test_of_what_applies_to_a_camera_the_shortest_counts(site):
    group, both, alone = (
        Camera(uuid4(), name, "rtsp://10.0.0.7/", group="doors") for name in ("a", "b", "c")
    )
    alone = replace(alone, group="")
    for camera in (group, both, alone):
        site.cameras.add(camera)
    edit(site, RETENTION, "groups: {}", "groups: {doors: 7d, roof: 1d}")
    gone = uuid4()
    named = {both.id: "10d", alone.id: "3d", gone: "12h"}
    edit(
        site,
        RETENTION,
        "cameras: {}",
        f"cameras: {{{', '.join(f'{one}: {keep}' for one, keep in named.items())}}}",
    )
    policy = site.retention()[Kind.VIDEO]
    keeps = {group.id: 7 * DAY, both.id: 7 * DAY, alone.id: 3 * DAY, gone: DAY / 2}
    assert policy.shorter == keeps
    assert policy.keep_of(uuid4()) == 30 * DAY
    assert site.unknown_in_retention() == ["group roof", f"camera {gone}"]
    edit(site, RETENTION, "keep: 30d", "keep: 4d")
    assert site.retention()[Kind.VIDEO].shorter == {alone.id: 3 * DAY, gone: DAY / 2}


@pytest.mark.parametrize("count", [MOST_KEEPS, MOST_KEEPS + 1])
def test_there_is_an_end_to_how_many_keeps_a_site_can_have(site, count):
    named = ", ".join(f"{uuid4()}: {number + 1}d" for number in range(count) for _ in range(2))
    edit(site, RETENTION, "cameras: {}", f"cameras: {{{named}, {uuid4()}: 30d}}")
    if count <= MOST_KEEPS:
        assert len(site.retention()[Kind.VIDEO].series) == count + 1
        return
    with pytest.raises(ConfigInvalid, match="9 different times besides the site's; at most 8") as refused:
        site.retention()
    assert "the same keep" in refused.value.hint


def test_the_schema_knows_the_ceilings():
    """An editor that checks the schema refuses what the program would, whatever unit it is written in."""
    schema = RetentionFile.model_json_schema()["$defs"]
    for kind, ceiling in (("Video", 30 * DAY), ("EntryExit", DAY)):
        pattern = re.compile(schema[f"{kind}KeepSettings"]["properties"]["keep"]["pattern"])
        for unit, length in (("d", DAY), ("h", DAY / 24), ("m", DAY / 1440)):
            for count in range(1, 50_000):
                assert bool(pattern.match(f"{count}{unit}")) == (count * length <= ceiling), (count, unit)
        for seconds in (1, 86_399, 86_400, 86_401, 2_591_999, 2_592_000, 2_592_001, 2_600_000, 9_999_999):
            assert bool(pattern.match(f"{seconds}s")) == (timedelta(seconds=seconds) <= ceiling), seconds
        for text in ("29d23h59m59s", "23h59m59s", "1d12h", "30d1s", "24h1s", "29d24h", "1d1s"):
            if pattern.match(text):
                assert parse_duration(text) <= ceiling, text


@pytest.mark.parametrize(
    ("file", "old", "new", "error", "says"),
    [
        pytest.param(RETENTION, "keep: 30d", "keep: 31d", KeepTooLong, "paragraph 27", id="too long"),
        pytest.param(RETENTION, "keep: 24h", "keep: 25h", KeepTooLong, "paragraph 27", id="entries"),
        pytest.param(RETENTION, "groups: {}", "groups: {a: 31d}", KeepTooLong, "paragraph 27", id="group"),
        pytest.param(RETENTION, "cameras: {}", "cameras: {x: 1d}", ConfigInvalid, "UUID", id="no UUID"),
        pytest.param(RETENTION, "keep: 30d", "keep: 30", ConfigInvalid, "duration", id="no unit"),
        pytest.param(RETENTION, "keep: 30d", "keap: 30d", ConfigInvalid, "keap", id="unknown key"),
        pytest.param(RETENTION, "keep: 30d", "keep: 1d\n  keep: 30d", ConfigInvalid, "twice", id="key twice"),
        pytest.param(RETENTION, "video:", "video: [", ConfigInvalid, "not YAML", id="not YAML"),
        pytest.param(ACCESS, "[export]", "[exports]", ConfigInvalid, "second_person", id="no mode"),
        pytest.param("videostore.yaml", "version: 1", "version: 2", SiteTooNew, "version 2", id="newer"),
        pytest.param(
            "videostore.yaml", "segment: 10s", "segment: 1s", ConfigInvalid, "2s to 120s", id="short"
        ),
        pytest.param(
            "videostore.yaml",
            "127.0.0.1:8470",
            "0.0.0.0:8470\n  plain_http: true",
            ConfigInvalid,
            "plain_http",
            id="no TLS",
        ),
        pytest.param(
            "cameras.yaml", "cameras: []", "cameras: [{id: x}]", ConfigInvalid, "cameras", id="camera"
        ),
    ],
)
def test_a_broken_file_is_named_with_the_place_and_a_hint(site, file, old, new, error, says):
    edit(site, file, old, new)
    with pytest.raises(error, match=says) as caught:
        Site.load(site.root)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_slip_of_the_pen_is_answered_with_the_word_that_was_meant(site):
    edit(site, RETENTION, "lead: 15m", "laed: 15m")
    with pytest.raises(ConfigInvalid) as caught:
        Site.load(site.root)
    assert caught.value.hint == "Did you mean 'lead'?"


def test_what_is_no_site_is_said(tmp_path):
    with pytest.raises(SiteMissing, match="not a videostore site"):
        Site.load(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused, and only root can give a file away")
def test_root_is_refused_where_the_roles_could_not_read_what_it_writes(site):
    os.chown(site.root, pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(SiteError, match="belongs to the user nobody") as caught:
        Site.load(site.root)
    assert "runuser -u nobody" in caught.value.hint


def test_an_existing_directory_is_never_overwritten(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SiteExists), NewDirectory(tmp_path):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_failure_while_making_a_site_leaves_nothing_behind(tmp_path):
    target = tmp_path / "site"

    def fail():
        with NewDirectory(target) as building:
            (building / "half").write_text("made")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_camera_keeps_its_uuid_whatever_it_is_called(site):
    first = site.cameras.add(Camera(uuid4(), "door", "rtsp://10.0.0.7/1"))
    with pytest.raises(CameraExists):
        site.cameras.add(Camera(uuid4(), "door", "rtsp://10.0.0.8/1"))
    site.cameras.remove("door")
    second = site.cameras.add(Camera(uuid4(), "door", "rtsp://10.0.0.8/1"))
    assert first.id != second.id
    assert site.cameras.find("door").id == second.id
    assert site.cameras.find(str(first.id)).removed
    with pytest.raises(CameraUnknown):
        site.cameras.find("window")


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        pytest.param("admin:s3cret", 0o644, "read by others", id="open to others"),
        pytest.param("s3cret", 0o600, "user:password", id="no user"),
    ],
)
def test_a_bad_credentials_file_is_refused_without_repeating_it(tmp_path, content, mode, says):
    path = tmp_path / "camera"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(CredentialsInvalid, match=says) as caught:
        resolve_credentials("file:camera", root=tmp_path)
    assert "s3cret" not in str(caught.value)


def test_credentials_come_from_the_environment_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("DOOR", "admin:s3:cret")
    assert resolve_credentials("env:DOOR", root=tmp_path) == ("admin", "s3:cret")
    assert resolve_credentials("", root=tmp_path) is None
    with pytest.raises(CredentialsInvalid, match="NOWHERE"):
        resolve_credentials("env:NOWHERE", root=tmp_path)


@given(st.integers(0, 10**11))
def test_a_duration_reads_back_as_it_was_shown(milliseconds):
    length = timedelta(milliseconds=milliseconds)
    assert parse_duration(show_duration(length)) == length


def test_a_policy_that_breaks_while_running_leaves_the_last_good_one_in_force(site):
    followed = Followed(site.root / "policies" / "retention.yaml", site.retention)
    edit(site, RETENTION, "keep: 30d", "keep: 7d")
    assert followed()[Kind.VIDEO].keep == timedelta(days=7)
    edit(site, RETENTION, "keep: 7d", "keep: 700d")
    assert followed()[Kind.VIDEO].keep == timedelta(days=7)
    edit(site, RETENTION, "keep: 700d", "keep: 5d")
    assert followed()[Kind.VIDEO].keep == timedelta(days=5)


def test_a_policy_that_was_read_while_an_editor_wrote_it_is_read_again(site):
    path = site.root / "policies" / "retention.yaml"
    followed, text, now = Followed(path, site.retention), path.read_text(), time.time_ns()
    for written, days in ((text[:0], 30), (text.replace("keep: 30d", "keep: 7d"), 7)):
        path.write_text(written)
        os.utime(path, ns=(now, now))  # one tick of the clock of the kernel
        assert followed()[Kind.VIDEO].keep == timedelta(days=days)


def test_nobody_gets_what_was_in_force_while_another_reads_what_is(tmp_path):
    path, answers = tmp_path / "file", []

    def read():
        text = path.read_text()
        if text == "new":
            other.start()
            other.join(0.1)  # it waits for this reading, or has its answer by then
        return text

    path.write_text("old")
    followed = Followed(path, read)
    other = Thread(target=lambda: answers.append(followed()))
    path.write_text("new")
    os.utime(path, ns=(1, 1))
    assert followed() == "new"
    other.join()
    assert answers == ["new"]


def test_a_site_has_one_process_for_each_role_and_a_dead_one_frees_it(site):
    program = (
        "import sys, os, pathlib; from videostore.config.site import Site\n"
        "with Site.load(pathlib.Path(sys.argv[1])).duty('recorder'):\n"
        "    print('on', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, site.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"on\n"
        with pytest.raises(SiteBusy), site.duty("recorder"):
            pass
        with site.duty("retention"):
            pass
        other.kill()
    with site.duty("recorder"):
        site.announce("recorder", {"metrics_url": "http://127.0.0.1:1/metrics"})
        assert site.running()["recorder"]["pid"] == os.getpid()
    assert site.running() == {}


@pytest.mark.parametrize("now", ["true ", "maybe"])
def test_a_policy_counts_as_it_is_written_now_whatever_its_file_says_of_its_age(site, now):
    path = site.root / ACCESS
    stamp = path.stat()
    assert not site.access().break_glass
    with path.open("r+") as file:  # the same inode, size and time
        text = file.read()
        file.seek(0)
        file.write(text.replace("break_glass: false", f"break_glass: {now}"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    for _ in range(2):
        if now == "maybe":
            with pytest.raises(ConfigInvalid):
                site.access()
        else:
            assert site.access().break_glass
