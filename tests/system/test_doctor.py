"""`videostore doctor` finds what is wrong with a machine, and each finding says how it is mended."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from videostore import app as composition
from videostore.app.disks import disks, places
from videostore.config.settings import SiteSettings
from videostore.config.site import Site

ANY_PORTS = "metrics: {recorder: '127.0.0.1:0', retention: '127.0.0.1:0', gate: '127.0.0.1:0'}\n"


def findings(tmp_path, settings=""):
    root = tmp_path / "site"
    text = f"version: 1\nsite: test\nrecorder: {{spool_limit: 1MB}}\n{settings}"
    composition.create(root, name="test", overrides={"videostore.yaml": text})
    rows = composition.diagnose(Site.load(root))
    assert all(row["ok"] or row["hint"] for row in rows)
    return {row["what"]: row for row in rows}


def test_a_new_site_lacks_a_backup_checkpoints_elsewhere_and_somebody_who_approves(tmp_path):
    rows = findings(tmp_path, f"{ANY_PORTS}gate: {{listen: '127.0.0.1:0'}}\n")
    machine = {"time service", "disk", "sync"}
    assert {what for what, row in rows.items() if not row["ok"]} - machine == {
        "approvers",
        "backup",
        "checkpoints",
    }


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"gate: {{listen: '127.0.0.1:{taken.getsockname()[1]}'}}\n"
        row = findings(tmp_path, f"{ANY_PORTS}{listen}")["ports"]
    assert not row["ok"]
    assert "gate.listen" in row["answer"]


@pytest.mark.parametrize(("days", "well"), [(13, False), (15, True)])
def test_a_certificate_that_ends_soon(tmp_path, days, well):
    issued = trustme.CA().issue_cert("gate", not_after=datetime.now(UTC) + timedelta(days=days))
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "gate.pem"))
    files = f"tls_certificate: {tmp_path}/gate.pem, tls_key: {tmp_path}/key.pem"
    assert findings(tmp_path, f"gate: {{{files}}}\n")["certificate"]["ok"] is well


def test_a_disk_with_less_room_than_the_spool_may_take(tmp_path):
    root = tmp_path / "site"
    text = "version: 1\nsite: test\nrecorder: {spool_limit: 1EB}\n"
    composition.create(root, name="test", overrides={"videostore.yaml": text})
    (row,) = [row for row in composition.diagnose(Site.load(root)) if row["what"] == "disk"]
    assert not row["ok"]
    assert "spool_limit" in row["hint"]


def test_places_that_share_a_disk_count_as_one(tmp_path):
    elsewhere = {"version": 1, "site": "test", "store": {"kind": "directory", "path": "/proc/none"}}
    where = places(Site(tmp_path, SiteSettings.model_validate(elsewhere)))
    assert where.keys() == {"site", "spool", "keyring", "catalogue", "store"}
    assert disks(where) == {"site": tmp_path, "store": Path("/proc")}
