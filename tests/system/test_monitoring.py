"""What an operator is told by Prometheus: the table of metrics and the alerts, judged by its own tools."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import yaml
from prometheus_client import generate_latest

from tests.cameras import serving
from tests.conftest import program
from tests.servers import prometheus, until
from tests.system.commands import facts, make_site, running, said
from videostore import telemetry
from videostore.config.site import Site
from videostore.domain.camera import Camera
from videostore.sealing import new_identity

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_prometheus_finds_nothing_to_say_about_our_metrics():
    for metric in telemetry._TABLE:
        if metric._labelnames:
            metric.labels(*("x" for _ in metric._labelnames))
    for registry in telemetry.REGISTRIES.values():
        promtool("check", "metrics", said=generate_latest(registry))


def test_no_proxy_stands_between_our_own_processes(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    server, thread = telemetry.serve_metrics("gate", "127.0.0.1", 0, asked={})
    try:
        assert telemetry.read_metrics(f"http://127.0.0.1:{server.server_port}/metrics")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_every_alert_fires_when_it_should_and_only_then():
    promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    promtool("test", "rules", *sorted((DEPLOY / "prometheus" / "tests").glob("*.yml")))


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A site of two cameras that runs, watched by a Prometheus that looks twice a second."""
    program("prometheus")
    root = make_site(tmp_path_factory.mktemp("watched") / "site")
    with (root / "videostore.yaml").open("a") as settings:
        settings.write("retention: {sweep: 1s}\n")
    with serving("lobby", "gate") as cameras:
        for name in ("lobby", "gate"):
            Site.load(root).cameras.add(Camera(uuid4(), name, cameras.url(name)))
        with running(root, "all") as site:
            directory = tmp_path_factory.mktemp("prometheus")
            with prometheus(directory, as_deployed(directory, where_roles_listen(root))) as url:
                yield Watched(root, cameras, site, url)


def where_roles_listen(root):
    found = {path.stem: json.loads(path.read_text()) for path in (root / "run").glob("*.json")}
    return {role: facts["metrics"].removeprefix("http://").removesuffix("/metrics")
            for role, facts in found.items() if "metrics" in facts}  # fmt: skip


def as_deployed(directory, addresses, waits_seconds=900):
    """Return the configuration that we ship, with these addresses and less patience."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    for target in config["scrape_configs"][0]["static_configs"]:
        target["targets"] = [addresses[target["labels"]["role"]]]
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["for"] = "1s"
            if rule["alert"] == "SpoolNotDraining":
                assert rule["expr"].endswith(" > 600")
                rule["expr"] = rule["expr"].replace(" > 600", f" > {waits_seconds}")
    (directory / "alerts.yml").write_text(yaml.safe_dump(rules))
    return yaml.safe_dump(config)


class Watched:
    def __init__(self, root, cameras, site, url):
        self.root, self.cameras, self.site, self.url = root, cameras, site, url

    def ask(self, expression):
        """Return the series that a query gives now, by their labels."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=60).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        return answer["data"]["result"]

    def firing(self):
        found = {one["metric"]["alertname"] for one in self.ask('ALERTS{alertstate="firing"}')}
        return found - {
            "HostClockNotSynchronised",
            "DiskFilling",
            "DiskFullSoon",
        }  # of the machine, not the site

    def wait_for(self, expression):
        until(
            lambda: self.ask(expression), seconds=90, why=lambda: f"{expression}\n{self.site.log.read_text()}"
        )


def test_nothing_fires_while_all_is_well_a_lost_camera_does_and_a_returned_one_does_no_more(watched):
    watched.wait_for("sum(videostore_camera_up) == 2 and sum(videostore_uploaded_segments_total) >= 2")
    watched.wait_for('sum(count_over_time(up{job="videostore"}[1h])) >= 12')  # alerts had time to fire
    until(lambda: watched.firing() == set(), seconds=90, why=watched.site.log.read_text)
    watched.cameras.cameras["lobby"].away = True
    until(lambda: watched.firing() == {"CameraDown"}, seconds=90, why=watched.site.log.read_text)
    watched.cameras.cameras["lobby"].away = False
    until(lambda: watched.firing() == set(), seconds=90, why=watched.site.log.read_text)


def test_a_store_that_is_away_is_told_and_told_to_be_back_and_costs_no_footage(watched, tmp_path):
    """As a day without the store, with rules that wait three seconds instead of ten minutes."""
    store, away = watched.root / "store", watched.root / "away"
    config = as_deployed(tmp_path, where_roles_listen(watched.root), waits_seconds=3)
    with prometheus(tmp_path, config) as url:
        impatient = Watched(watched.root, watched.cameras, watched.site, url)
        store.rename(away)
        try:
            until(
                lambda: "SpoolNotDraining" in impatient.firing(), seconds=90, why=watched.site.log.read_text
            )
        finally:
            away.rename(store)
        until(
            lambda: "SpoolNotDraining" not in impatient.firing(), seconds=90, why=watched.site.log.read_text
        )
    told = facts("coverage", "--from", "10m", site=watched.root)
    details = {one["detail"] for camera in told.values() for one in camera["stretches"]}
    assert "spool-overrun" not in details


def test_nobody_is_woken_for_a_camera_that_was_disabled_and_the_level_of_the_log_is_followed(watched):
    cameras, settings = Site.load(watched.root).cameras, watched.root / "videostore.yaml"
    watched.wait_for("count(videostore_camera_up) == 2")
    quiet = settings.read_text()
    settings.write_text(f"{quiet}logging: {{level: error}}\n")
    before = watched.site.log.read_text()
    cameras.disable("lobby")
    watched.wait_for("count(videostore_camera_up) == 1")
    assert "camera.stopped" not in watched.site.log.read_text().removeprefix(before)
    settings.write_text(quiet)
    cameras.disable("lobby", enabled=True)
    until(lambda: "camera.started" in watched.site.log.read_text().removeprefix(before), seconds=90)


def test_roles_say_that_they_live_and_are_ready_or_what_they_lack(watched):
    addresses = where_roles_listen(watched.root)
    assert addresses.keys() == {"recorder", "retention", "gate"}

    def ask(role, path):
        answer = httpx.get(f"http://{addresses[role]}{path}", timeout=60)
        return answer.status_code, answer.text.strip()

    for role in addresses:
        assert ask(role, "/healthz") == ask(role, "/readyz") == (200, "ok")
        assert ask(role, "/secrets")[0] == 404
    (watched.root / "restored.json").touch()
    try:
        assert {ask(role, "/readyz") for role in addresses} == {
            (503, "the site is restored and not reconciled")
        }
        assert {ask(role, "/healthz") for role in addresses} == {(200, "ok")}
    finally:
        (watched.root / "restored.json").unlink()


def test_status_shows_what_the_roles_say(watched):
    def is_well():
        """By one answer: the next may find a camera that a busy machine held up."""
        found.update(facts("status", site=watched.root))
        known = [
            one["state"] == "sends" and one["last_frame"] and one["footage_until"] for one in found["cameras"]
        ]
        return known and all(known) and found["problems"] == [] and found["last_sweep"]

    def is_shown():
        pages.append(said("status", site=watched.root))
        return "all is well" in pages[-1] and "lobby" in pages[-1]

    found, pages = {}, []
    until(is_well, seconds=90, why=lambda: str(found))
    until(is_shown, seconds=90, why=lambda: pages[-1])


DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
PANELS = [(path.stem, panel) for path in DASHBOARDS for panel in json.loads(path.read_text())["panels"]
          if panel["type"] != "row"]  # fmt: skip
EMPTY_WHEN_ALL_IS_WELL = {"Picture faults", "RTP packets lost a second", "Files of drop folders",
                          "Store errors a minute", "Alerts", "Decisions of the gate"}  # fmt: skip


def test_every_panel_of_the_dashboards_has_an_answer(watched):
    gate = json.loads((watched.root / "run" / "gate.json").read_text())["gate"]
    authority = ssl.create_default_context(cafile=watched.root / "tls" / "ca.pem")
    guess = {"staff_id": "nobody", "password": "guess"}
    refused = httpx.post(f"{gate}/v1/login", json=guess, verify=authority, timeout=60)
    assert refused.status_code == 401
    watched.wait_for('videostore_gate_logins_total{outcome="refused"}')
    watched.wait_for("videostore_upload_seconds_count > 1")
    watched.wait_for("videostore_oldest_footage_timestamp_seconds > 0")
    _, recipient = new_identity()
    assert watched.ask("videostore_backup_max_age_seconds > 0") == []
    said("backup", "create", watched.root.parent / "site.backup", "--recipient", recipient, site=watched.root)
    watched.wait_for(
        "videostore_last_backup_timestamp_seconds > time() - 600 and videostore_backup_max_age_seconds > 0"
    )
    variables = {"$__rate_interval": "1m", "$__range": "6h"}
    for _, panel in PANELS:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in variables.items():
                expression = expression.replace(name, value)
            if panel["title"] in EMPTY_WHEN_ALL_IS_WELL:
                watched.ask(expression)
            else:  # a scrape may have come late
                watched.wait_for(expression)


def test_dashboards_are_as_grafana_reads_them():
    metrics = {name for name, *_ in telemetry.metrics()}
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        assert board["uid"] == f"videostore-{path.stem}"
        panels = board["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        taken = set()
        for panel in panels:
            at = panel["gridPos"]
            cells = {
                (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
            }
            assert not cells & taken
            assert at["x"] + at["w"] <= 24
            taken |= cells
            for target in panel.get("targets", []):
                assert target["datasource"] == {"type": "prometheus", "uid": "prometheus"}
                for name in re.findall(r"videostore_\w+", target["expr"]):
                    assert name in metrics or re.sub("_(bucket|sum|count)$", "", name) in metrics, name


def promtool(*command, said=b""):
    done = subprocess.run([program("promtool"), *command], input=said, capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, ""), done.stdout.decode()
