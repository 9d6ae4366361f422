"""What an operator is told by Prometheus: the table of metrics and the alerts, judged by its own tools."""

from __future__ import annotations

import subprocess
from pathlib import Path

from prometheus_client import generate_latest

from tests.conftest import program
from videostore import telemetry

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_prometheus_finds_nothing_to_say_about_our_metrics():
    for metric in telemetry._TABLE:
        if metric._labelnames:
            metric.labels(*("x" for _ in metric._labelnames))
    for registry in telemetry.REGISTRIES.values():
        promtool("check", "metrics", said=generate_latest(registry))


def test_every_alert_fires_when_it_should_and_only_then():
    promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    promtool("test", "rules", *sorted((DEPLOY / "prometheus" / "tests").glob("*.yml")))


def promtool(*command, said=b""):
    done = subprocess.run([program("promtool"), *command], input=said, capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, ""), done.stdout.decode()
