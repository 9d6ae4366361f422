"""What is under deploy/ is what its own tools accept, and gives each part no more than it needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from tests.conftest import program
from videostore.config.files import read_yaml
from videostore.config.settings import SiteSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PODS = [*yaml.safe_load_all((DEPLOY / "kubernetes" / "site.yaml").read_text())]
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
OUR_ROLES = ("recorder", "retention", "gate")


def test_the_dockerfile_is_clean_and_copies_what_there_is():
    lint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([lint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    text = (DEPLOY / "Dockerfile").read_text()
    sources = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert sources
    assert [name for name in sources if not (ROOT / name).exists()] == []
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1] == "10001:10001"


def test_the_compose_file_is_one_by_the_specification():
    merged = {
        name: part for name, part in COMPOSE.items() if not name.startswith("x-")
    }  # by YAML, as Compose does
    read = PyCompose.from_yaml(yaml.safe_dump(merged))
    read.validate()
    assert set(read.service_names()) == set(COMPOSE["services"])


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_container_has_the_least_it_needs(name):
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].split(":")[0] not in {"0", "root"}
    assert "privileged" not in service
    assert service.get("network_mode") in {None, "none"}
    assert re.search(r":v?\d|:local$", service["image"]), "an image of a version, not of a day"
    if name not in {"init", "cameras"}:
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
        assert service["healthcheck"]["test"][0] == "CMD"
    for secret in service.get("secrets", []):
        assert COMPOSE["secrets"][secret]["file"].startswith("secrets/")
    for mount in service.get("volumes", []):
        source = mount.split(":")[0]
        assert not source.startswith("./") or ((ROOT / source).exists() and mount.endswith(":ro"))


def test_no_role_has_the_credentials_of_another_and_the_recorder_no_private_key():
    secrets = {role: set(COMPOSE["services"][role]["secrets"]) - {"store-admin"} for role in OUR_ROLES}
    assert secrets == {role: {f"store-{role}"} for role in OUR_ROLES}
    hidden = COMPOSE["services"]["recorder"]["tmpfs"]
    containers = {one["name"]: one for one in PODS[0]["spec"]["template"]["spec"]["containers"]}
    covered = [one["mountPath"] for one in containers["recorder"]["volumeMounts"] if one["name"] == "nothing"]
    unit = (DEPLOY / "systemd" / "videostore@recorder.service.d" / "least.conf").read_text()
    for place in ("keyring/private", "presence-keys/private"):
        assert f"/site/premises/{place}" in hidden
        assert f"/site/premises/{place}" in covered
        assert f"InaccessiblePaths=-/var/lib/videostore/{place}" in unit


@pytest.mark.parametrize("path", ["compose/videostore.yaml", "kubernetes/videostore.yaml"])
def test_the_settings_are_settings(path):
    assert read_yaml(DEPLOY / path, SiteSettings).site == "premises"


def test_prometheus_in_compose_watches_as_on_one_host():
    one, other = (
        yaml.safe_load((DEPLOY / path).read_text())
        for path in ("prometheus/prometheus.yml", "compose/prometheus.yml")
    )
    for config in (one, other):
        for target in config["scrape_configs"][0]["static_configs"]:
            del target["targets"]
    assert one == other


@pytest.mark.parametrize(
    "name", yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
)
def test_kubernetes_accepts_every_resource(name):
    for resource in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()):
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def test_every_container_of_the_pod_is_restricted():
    pod = PODS[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["livenessProbe"]
        assert container["readinessProbe"]


def test_systemd_accepts_the_units_and_finds_them_closed(tmp_path):
    analyze = program("systemd-analyze")
    units = tmp_path / "units"
    shutil.copytree(DEPLOY / "systemd", units)
    for path in units.glob("*.service"):
        path.write_text(path.read_text().replace("/opt/videostore/bin/videostore", "/bin/true"))
    names = [f"videostore@{role}.service" for role in OUR_ROLES]
    for name in names:
        shutil.copy(units / "videostore@.service", units / name)
    verified = [*names, "videostore-backup.service", "videostore-backup.timer"]
    done = subprocess.run([analyze, "verify", "--man=no", *(units / name for name in verified)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "videostore" in line] == []
    for name in (*names, "videostore-backup.service"):
        closed = [analyze, "security", "--offline=true", "--no-pager", "--threshold=20", units / name]
        done = subprocess.run(closed, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-300:] + done.stderr
