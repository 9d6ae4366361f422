"""What the pages say is what the code does."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from videostore.cli.main import app
from videostore.domain import errors
from videostore.telemetry import LABELS, metrics

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMAND = re.compile(r"(?:^\s*\$? ?|`|;|\|\s*|(?<=bin/))videostore ((?:[a-z-]+ ?)+[^`;|#\n]*)", re.MULTILINE)


def make():
    spec = importlib.util.spec_from_file_location("make", ROOT / "docs" / "reference" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = make()


def test_reference_pages_say_what_the_code_says():
    for name, text in MAKE.pages().items():
        written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
        assert written == text, f"run `python docs/reference/make.py`: {name} is out of date"


FIELDS = [
    (path, name)
    for modules in MAKE.FORMATS.values()
    for path, beside in modules.items()
    for name in re.findall(r"`([a-z_]+)`", beside)
]


def test_every_field_that_the_page_of_formats_names_is_in_the_code():
    assert len(FIELDS) > 40
    assert [one for one in FIELDS if f'"{one[1]}"' not in (ROOT / one[0]).read_text(encoding="utf-8")] == []


def commands_in(page):
    text = page.read_text(encoding="utf-8")
    if page.name in {"cli.md", "CHANGELOG.md"}:
        return []
    return [match.group(1).strip() for match in COMMAND.finditer(text)]


ALL = sorted({(page.relative_to(ROOT).as_posix(), line) for page in PAGES for line in commands_in(page)})


def test_there_are_commands_to_test():
    assert len(ALL) > 25


@pytest.mark.parametrize(("page", "line"), ALL)
def test_every_command_in_a_page_exists_with_its_options(page, line):
    words = shlex.split(line.replace("…", "x").rstrip("…. ,)"))
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not (words and hasattr(command, "commands") and not words[0].startswith("-")), line
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for word in words:
        if word.startswith("-") and word != "-":
            assert word in {*known, "--help"}, f"{page}: {line}"


def links():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            yield page.relative_to(ROOT).as_posix(), target


@pytest.mark.parametrize(("page", "target"), sorted(set(links())))
def test_every_link_leads_somewhere(page, target):
    assert ((ROOT / page).parent / target).exists()


def test_ci_runs_exactly_the_test_command_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^    (python3 -m venv .*pytest)$", readme, re.MULTILINE)
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for part in line.split(" && "):
        assert part in ci.replace("pip install -q", "pip install"), part
    assert ci.rstrip().endswith(".venv/bin/pytest")


def test_the_readme_names_the_number_and_the_two_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "30 days" in readme[:400]
    assert len(re.findall(r"^    python3 -m venv", readme, re.MULTILINE)) == 2


PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
         for rule in group["rules"]]  # fmt: skip
RUNBOOK = "write docs/guide/runbooks/{0}.md (as CameraDown.md) and name it in the annotation `runbook` of {0}"
UNIT_TEST = (
    "write deploy/prometheus/tests/{0}.yml (as CameraDown.yml): a moment when {0} fires, one when it does not"
)
KNOWN = {f"{name.removesuffix('_total')}{end}" for name, *_ in metrics()
         for end in ("", "_total", "_bucket", "_sum", "_count")}  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_page_and_a_test_and_asks_for_metrics_that_exist(rule):
    name, said = rule["alert"], rule["annotations"]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert said.keys() == {"summary", "description", "runbook"}, f"{name}: say what, and what it means"
    assert said["runbook"] == f"guide/runbooks/{name}.md", RUNBOOK.format(name)
    page = ROOT / "docs" / said["runbook"]
    assert page.exists(), RUNBOOK.format(name)
    assert re.match(rf"# {name}\n\n\S.*\n## Do now\n\n1\. .*\n## Over when\n", page.read_text(), re.DOTALL), (
        f"{page.name} needs the title {name}, what it means, ## Do now with numbered steps, ## Over when"
    )
    tested = PROMETHEUS / "tests" / f"{name}.yml"
    assert tested.exists(), UNIT_TEST.format(name)
    firing = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
    cases = [case for one in yaml.safe_load(tested.read_text())["tests"] for case in one["promql_expr_test"]]
    expected = {bool(case["exp_samples"]) for case in cases if firing in case["expr"]}
    assert expected == {True, False}, UNIT_TEST.format(name)
    asked = set(re.findall(r"videostore_\w+", rule["expr"]))
    assert asked - KNOWN == set(), "the alert asks for metrics that videostore/telemetry.py does not have"


def test_no_page_and_no_test_is_of_an_alert_that_is_no_more():
    names = {rule["alert"] for rule in RULES}
    assert {path.stem for path in (ROOT / "docs" / "guide" / "runbooks").glob("*.md")} == names
    assert {path.stem for path in (PROMETHEUS / "tests").glob("*.yml")} == names


def test_every_label_of_a_metric_is_bounded_and_every_plain_gauge_belongs_to_one_role():
    for name, kind, _, labels, roles in metrics():
        assert set(labels) <= LABELS.keys(), (
            f"{name}: add its labels to telemetry.LABELS, with what bounds them"
        )
        assert kind != "gauge" or labels or len(roles) == 1, (
            f"{name}: a gauge that a role never sets reads 0 there; make it with _recorder, …"
        )
    assert LABELS.keys() == {label for *_, labels, _ in metrics() for label in labels}


def test_the_tree_of_errors_in_the_docstring_is_the_tree():
    for error in errors.every_error():
        (line,) = re.findall(rf"── {error.__name__} +(\d+)(?: +(\d+))?", errors.__doc__)
        status = str(error.http_status) if line[1] else ""
        assert line == (str(error.exit_code), status)


def test_every_file_of_tests_that_a_port_names_exists():
    named = re.findall(r"tests/\S+\.py", (ROOT / "videostore" / "ports.py").read_text(encoding="utf-8"))
    assert len(named) >= 9
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_threat_has_its_test():
    page = (ROOT / "docs" / "design" / "0020-threats.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)` \|$", page, re.MULTILINE)
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)\(", tests, re.MULTILINE))
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert len(named) == len(rows) > 25
    assert set(named) - there == set()


def test_the_pages_are_a_site_without_a_dead_link(tmp_path):
    mkdocs = Path(sys.executable).with_name("mkdocs")
    build = [
        mkdocs,
        "build",
        "--strict",
        "--quiet",
        "--config-file",
        ROOT / "mkdocs.yml",
        "--site-dir",
        tmp_path,
    ]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
