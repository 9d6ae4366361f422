"""Every mistake gets a line that says what, a hint, and its own exit code; nothing is half made."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from datetime import datetime

import pytest

from tests.cameras import serving, web_server
from tests.system.commands import PROGRAM, make_site, running, said, videostore
from videostore.domain import errors
from videostore.durable import disk_errors


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make_site(tmp_path_factory.mktemp("template") / "site")


@pytest.fixture
def site(template, tmp_path):
    return shutil.copytree(template, tmp_path / "site")


@pytest.fixture(scope="module")
def cameras():
    with serving("lobby", "officer:open sesame@locked") as server:
        yield server


def refused(done, error):
    """Two lines on stderr, no traceback, and the exit code of ``error``."""
    assert done.returncode == error.exit_code, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("videostore: ")
    assert lines[1].startswith("  -> ")
    return done.stderr


def add(site, url, *args, name="new"):
    done = videostore("camera", "add", name, url, *args, site=site)
    if done.returncode:
        assert json.loads(said("camera", "list", "--json", "--all", site=site)) == []
    return done


# --- cameras ---


def test_an_unreachable_camera(site):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused(add(site, f"rtsp://127.0.0.1:{unused.getsockname()[1]}/x"), errors.CameraUnreachable)


def test_a_host_that_does_not_exist(site):
    assert "no host" in refused(add(site, "rtsp://camera.invalid/x"), errors.CameraUnreachable)


@pytest.mark.parametrize("login", [None, "officer:guess"])
def test_a_wrong_password(site, cameras, login):
    extra = []
    if login:
        (site / "secrets" / "login").write_text(login)
        (site / "secrets" / "login").chmod(0o600)
        extra = ["--credentials-file", "secrets/login"]
    assert "guess" not in refused(add(site, cameras.url("locked"), *extra), errors.CameraRefused)


def test_a_path_that_has_no_stream(site, cameras):
    refused(add(site, cameras.url("nothing")), errors.CameraStreamInvalid)


def test_a_web_server(site):
    with web_server() as port:
        refused(add(site, f"rtsp://127.0.0.1:{port}/"), errors.CameraNotRtsp)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/x", "lobby", "rtsp://", "rtsp://127.0.0.1:99999/x", "file:///x"]
)
def test_a_url_that_is_not_rtsp(site, url):
    assert add(site, url).returncode in {errors.CameraInvalid.exit_code, errors.CameraNotRtsp.exit_code}


def test_a_password_in_a_url_is_refused_and_not_repeated(site):
    done = add(site, "rtsp://officer:sesame@127.0.0.1/x")
    assert "sesame" not in refused(done, errors.CredentialsInvalid)


@pytest.mark.parametrize("fault", ["missing", "readable by others", "no colon", "variable"])
def test_credentials_that_cannot_be_used(site, cameras, fault):
    path = site / "secrets" / "login"
    if fault != "missing":
        path.write_text("sesame" if fault == "no colon" else "officer:sesame")
        path.chmod(0o644 if fault == "readable by others" else 0o600)
    extra = (
        ["--credentials-env", "NOT_SET"] if fault == "variable" else ["--credentials-file", "secrets/login"]
    )
    assert "sesame" not in refused(add(site, cameras.url("locked"), *extra), errors.CredentialsInvalid)


def test_a_name_that_is_taken(site, cameras):
    assert add(site, cameras.url("lobby")).returncode == 0
    refused(videostore("camera", "add", "new", cameras.url("lobby"), site=site), errors.CameraExists)


def test_a_camera_nobody_knows(site):
    refused(videostore("camera", "disable", "nothing", site=site), errors.CameraUnknown)


def test_nobody_types_a_password_before_what_else_is_wrong_is_said(site):
    done = videostore("staff", "add", "alice", "--public-key", "ed25519:nonsense", site=site)
    assert "Password" not in refused(done, errors.SignatureInvalid)


# --- sites and their files ---

HOLD = "version: 1\nhold: true\n"


@pytest.mark.parametrize(
    ("file", "change", "error"),
    [
        pytest.param("policies/retention.yaml", "version: [", errors.ConfigInvalid, id="broken policy"),
        pytest.param("policies/retention.yaml", "", errors.ConfigInvalid, id="empty policy"),
        pytest.param(
            "policies/access.yaml", "version: 1\nhold: true\n", errors.ConfigInvalid, id="unknown key"
        ),
        pytest.param("videostore.yaml", f"{HOLD}site: a\n", errors.ConfigInvalid, id="a hold"),
        pytest.param("videostore.yaml", "version: 99\nsite: a\n", errors.SiteTooNew, id="newer version"),
        pytest.param("cameras.yaml", "version: 1\ncameras: 7\n", errors.ConfigInvalid, id="broken cameras"),
    ],
)
def test_a_broken_file_stops_what_reads_it_and_is_named(site, file, change, error):
    (site / file).write_text(change)
    for command in (["run", "recorder"], ["policy", "check"]):
        assert file.rsplit("/", 1)[-1] in refused(videostore(*command, site=site), error)


def test_retention_goes_on_by_the_policy_on_record_whatever_file_is_broken(site):
    path = site / "policies" / "retention.yaml"
    path.write_text(path.read_text().replace("keep: 30d", "keep: 7d"))
    said("retention", "sweep", site=site)
    for file in ("policies/retention.yaml", "policies/access.yaml", "cameras.yaml"):
        (site / file).write_text("version: [")
    done = videostore("retention", "sweep", "--json", site=site)
    assert done.returncode == 0, done.stderr
    assert "file.broken" in done.stderr
    assert json.loads(done.stdout)["keys_created"] == 0  # the same keep: no key is missing


@pytest.mark.parametrize(("kind", "keep"), [("video", "31d"), ("video", "721h"), ("entry_exit", "25h")])
def test_keeping_longer_than_the_paragraph_allows_is_refused_by_its_name(site, kind, keep):
    path = site / "policies" / "retention.yaml"
    lengths = {"video": "30d", "entry_exit": "24h", kind: keep}
    rows = (f"{name}: {{keep: {length}, lead: 15m, key_period: 1h}}" for name, length in lengths.items())
    path.write_text("\n".join(["version: 1", *rows]) + "\n")
    assert "A/RES/61/263, paragraph 27" in refused(
        videostore("policy", "check", site=site), errors.KeepTooLong
    )


def test_a_directory_that_is_no_site(tmp_path):
    refused(videostore("status", site=tmp_path), errors.SiteMissing)
    assert list(tmp_path.iterdir()) == []


def test_a_site_is_never_made_over_something(site):
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    refused(videostore("init", site), errors.SiteExists)
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == before


def test_a_role_that_runs_already(site):
    with running(site, "recorder"):
        refused(videostore("run", "recorder", site=site), errors.SiteBusy)


# --- disks ---


def on_a_disk(mount, command):
    """Run a shell command with a small disk of its own at /mnt, in a name space of its own."""
    shell = f"mount -t tmpfs {mount} none /mnt && {command}"
    return subprocess.run(["unshare", "-rm", "sh", "-c", shell], capture_output=True, text=True, check=False)


@pytest.fixture
def name_spaces():
    if on_a_disk("-o size=64k", "true").returncode:
        pytest.skip("this kernel gives no name spaces to users")


PROGRAM_LINE = " ".join(PROGRAM)


def test_a_disk_without_room_leaves_nothing_half_made(name_spaces):
    line = f"{PROGRAM_LINE} init /mnt/site; code=$?; ls -A /mnt; exit $code"
    done = on_a_disk("-o size=32k", line)
    refused(done, errors.DiskFull)
    assert done.stdout == ""


def test_a_disk_that_is_read_only(name_spaces):
    refused(on_a_disk("-o ro", f"{PROGRAM_LINE} init /mnt/site"), errors.DiskNotWritable)


STORING = """
import hashlib, os
from pathlib import Path
from videostore.domain.errors import DiskFull
from videostore.store.directory import DirectoryStore

store, body = DirectoryStore.create(Path("/mnt/store")), os.urandom(60_000)
def put(key):
    store.put(key, body, sha256=hashlib.sha256(body).hexdigest())

put("day/kept")
try:
    put("day/too-much")
except DiskFull as error:
    print("full", bool(error.hint))
print(store.get("day/kept") == body, store.size("day/too-much"), os.listdir("/mnt/store/day"))
print(store.delete(["day/kept"]))
put("day/too-much")
print(store.get("day/too-much") == body)
"""


def test_a_store_whose_disk_is_full_says_so_keeps_what_it_has_and_takes_again_once_there_is_room(name_spaces):
    done = on_a_disk("-o size=100k", f"{shlex.quote(sys.executable)} -c {shlex.quote(STORING)}")
    assert done.stdout.splitlines() == ["full True", "True None ['kept']", "{}", "True"], done.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_quota_that_is_used_up_is_a_disk_without_room(number, tmp_path):
    with pytest.raises(errors.DiskFull), disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def test_a_recorder_whose_store_is_down_and_whose_disk_fills_loses_the_oldest_and_says_so(
    name_spaces, site, cameras
):
    said("camera", "add", "lobby", cameras.url("lobby"), site=site)
    path = site / "videostore.yaml"
    settings = path.read_text().replace('"segment"', '"spool": "/mnt/spool", "segment"')
    path.write_text(f"{settings}store: {{kind: directory, path: /mnt/nothing}}\n")
    look = "cd /mnt/spool; find ready -type f; find . -name '*.tmp'"
    gone = f"grep -q footage.lost {site}/told && test $(find /mnt/spool/ready -type f | wc -l) -ge 2"
    line = f"""{{ {PROGRAM_LINE} run recorder --site {site} 2> {site}/told & recorder=$!
        for n in $(seq 900); do {{ {gone}; }} && break; sleep 0.1; done
        kill -TERM $recorder; wait $recorder; cat {site}/told >&2; {look}; }}"""
    done = on_a_disk("-o size=200k", line)
    assert "Traceback" not in done.stderr
    starts = re.findall(r"footage\.lost .*\bstart=(\S+)", done.stderr)
    given_up = [datetime.fromisoformat(start) for start in starts]
    kept = re.findall(r"^ready/.*/(\d+T.*)$", done.stdout, re.MULTILINE)
    assert len(kept) >= 2
    assert ".tmp" not in done.stdout
    done = videostore("coverage", "--from", "1h", "--json", site=site)  # the spool went with its disk
    stretches = json.loads(done.stdout)["lobby"]["stretches"]
    (lost,) = [one for one in stretches if one["detail"] == "spool-overrun"]
    assert datetime.fromisoformat(lost["start"]) == min(given_up)
    assert min(kept) > max(given_up).strftime("%Y%m%dT%H%M%S.%fZ")


# --- the command line ---


@pytest.mark.parametrize(
    "args", [["nothing"], ["camera"], ["run", "everything"], ["play"], ["init", "--hold"]]
)
def test_a_command_line_that_makes_no_sense(args):
    assert videostore(*args).returncode == 2


def test_every_error_has_an_exit_code_of_its_own():
    codes = [error.exit_code for error in errors.every_error()]
    assert len(codes) == len(set(codes))
    assert not {0, 1, 2, 3, 130, 141} & set(codes)
