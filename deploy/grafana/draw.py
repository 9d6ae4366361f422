"""Draws the dashboards of this directory, for the documentation: ``python deploy/grafana/draw.py``.

It runs `videostore demo` and a Prometheus with the rules of deploy/prometheus, adds a camera that loses
packets and then goes away, asks every query of every panel over that span, and draws each panel where its
dashboard places it; and it keeps what `videostore status` shows at the end. Nothing in the pictures is made
up, and they are no pictures of Grafana: fonts and colours are ours. Takes six minutes; needs `prometheus` and
the extra `report`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
import yaml
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, MinuteLocator
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from videostore.synthetic.server import SyntheticCamera, SyntheticServer
from videostore.synthetic.stream import stream

HERE = Path(__file__).parent
PICTURES = HERE.parents[1] / "docs" / "guide" / "pictures"
PROGRAM = [sys.executable, "-m", "videostore.cli.main"]
STEP_SECONDS = 2
VARIABLES = {"$__rate_interval": "20s", "$__range": "10m"}
UNIT_INCHES = 0.56, 0.36
"""Of the dashboard's grid, which is 24 units wide."""
PAPER, PANEL, INK, FAINT = "#f4f5f5", "#ffffff", "#24292e", "#6e7680"
COLORS = {"green": "#37872d", "orange": "#e0752d", "red": "#c4162a"}
LINES = ("#1f60c4", "#37872d", "#e0752d", "#c4162a", "#8f3bb8", "#0c8a8a", "#7c5c00", "#5f6b73")

Series = tuple[dict[str, str], list[tuple[datetime, float]]]


class Prometheus:
    """Answers over the span that was watched."""

    def __init__(self, url: str, began: float) -> None:
        self._url, self._began = url, began

    def ask(self, query: str) -> list[Series]:
        """Return the series of a query, each a list of moments and values."""
        for name, value in VARIABLES.items():
            query = query.replace(name, value)
        span = {"start": self._began, "end": time.time(), "step": STEP_SECONDS}
        answer = httpx.get(f"{self._url}/api/v1/query_range", params={"query": query, **span}).json()
        series = [(one["metric"], points(one["values"])) for one in answer["data"]["result"]]
        return [one for one in series if one[1]]


def points(values: Sequence[tuple[float, str]]) -> list[tuple[datetime, float]]:
    """Return moments and values, without those that are no number: nothing was there to divide by."""
    return [(datetime.fromtimestamp(at, UTC), float(value)) for at, value in values if value != "NaN"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=330, help="how long the site is watched")
    parser.add_argument("--into", type=Path, default=PICTURES, help="directory of the pictures")
    wanted = parser.parse_args()
    mpl.rcParams.update({"font.size": 8, "text.color": INK, "axes.edgecolor": FAINT, "xtick.color": FAINT,
                         "ytick.color": FAINT, "figure.facecolor": PAPER})  # fmt: skip
    wanted.into.mkdir(parents=True, exist_ok=True)
    with watched(wanted.seconds, wanted.into / "status.svg") as asked:
        for path in sorted((HERE / "dashboards").glob("*.json")):
            draw(json.loads(path.read_text(encoding="utf-8")), asked, wanted.into / f"{path.stem}.png")


# --- what is watched ---


@contextmanager
def watched(seconds: int, screen: Path) -> Iterator[Prometheus]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as open_:
        root = Path(name) / "demo"
        site = root / "site"
        command = [*PROGRAM, "demo", "--cameras", "4", "--dir", str(root)]
        began = time.time()
        open_.enter_context(process(command, stopped_by=signal.SIGINT))
        until(lambda: len(listening(site)) == 3)
        server = Prometheus(open_.enter_context(prometheus(Path(name), listening(site))), began)
        until(lambda: server.ask("sum(videostore_gate_exports_total) > 0"))
        yard = SyntheticCamera("yard", stream(), loss=0.002)
        cameras = open_.enter_context(SyntheticServer([yard]))
        videostore("camera", "add", "yard", cameras.url("yard"), "--site", site)
        videostore("backup", "key", Path(name) / "backup.key")
        public = (Path(name) / "backup.key").read_text(encoding="utf-8").splitlines()[0].split()[-1]
        videostore("backup", "create", Path(name) / "demo.backup", "--recipient", public, "--site", site)
        time.sleep(seconds / 4)
        yard.away = True
        time.sleep(max(0.0, began + seconds - time.time()))
        keep_screen(videostore("status", "--site", site), screen)
        yield server


def videostore(*words: object) -> str:
    """Run a command as at a terminal of 100 columns, and return what it shows."""
    terminal = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "100", "LINES": "30"}
    command = [*PROGRAM, *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=terminal).stdout  # noqa: S603 - our own program


def keep_screen(shown: str, file: Path) -> None:
    """Keep what a terminal shows, without the fonts that Rich would fetch from elsewhere."""
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(Text.from_ansi(shown))
    own = re.sub(r"@font-face {{.*?}}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    console.save_svg(str(file), title="videostore status", code_format=own)


def listening(site: Path) -> dict[str, str]:
    found = {path.stem: json.loads(path.read_bytes()) for path in (site / "run").glob("*.json")}
    return {role: facts["metrics"].removeprefix("http://").removesuffix("/metrics")
            for role, facts in found.items() if "metrics" in facts}  # fmt: skip


@contextmanager
def prometheus(directory: Path, addresses: Mapping[str, str]) -> Iterator[str]:
    """Run one as it is deployed, with the addresses of the site, looking more often."""
    deployed = HERE.parent / "prometheus"
    config = yaml.safe_load((deployed / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": f"{STEP_SECONDS}s", "evaluation_interval": f"{STEP_SECONDS}s"}
    config["rule_files"] = [str(deployed / "alerts.yml")]
    for target in config["scrape_configs"][0]["static_configs"]:
        target["targets"] = [addresses[target["labels"]["role"]]]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={directory}/prometheus.yml",
               f"--storage.tsdb.path={directory}/data", f"--web.listen-address={address}",
               "--log.level=error"]  # fmt: skip
    with process(command):
        until(lambda: is_ready(f"http://{address}/-/ready"))
        yield f"http://{address}"


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


@contextmanager
def process(command: Sequence[str], *, stopped_by: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:  # noqa: S603 - ours, and Prometheus
        try:
            yield
        finally:
            child.send_signal(stopped_by)


def until(what: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise SystemExit("the site did not come up")
        time.sleep(0.5)


# --- how it is drawn ---


def draw(board: Mapping[str, Any], asked: Prometheus, file: Path) -> None:
    wide, high = UNIT_INCHES
    rows = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in board["panels"]) + 2
    figure = Figure(figsize=(24 * wide, rows * high))
    figure.text(0.012, 1 - 0.75 / rows, board["title"], fontsize=15, weight="bold", va="center")
    figure.text(0.012, 1 - 1.55 / rows, board["description"], fontsize=9, color=FAINT, va="center")
    for panel in board["panels"]:
        at = panel["gridPos"]
        box = (at["x"] / 24, 1 - (at["y"] + 2 + at["h"]) / rows, at["w"] / 24, at["h"] / rows)
        if panel["type"] == "row":
            figure.text(
                box[0] + 0.012, box[1] + box[3] / 2, panel["title"], fontsize=11, weight="bold", va="center"
            )
            continue
        frame = figure.add_axes((box[0] + 0.004, box[1] + 0.15 / rows, box[2] - 0.008, box[3] - 0.3 / rows))
        frame.set(xticks=[], yticks=[], facecolor=PANEL)
        frame.spines[:].set_color("#d8dadd")
        answers = [(one, series) for one in panel["targets"] for series in asked.ask(one["expr"])]
        {"stat": stat, "timeseries": lines, "table": table}[panel["type"]](frame, panel, answers, rows)
    figure.savefig(file, dpi=100, pil_kwargs={"optimize": True})
    sys.stdout.write(f"{file}\n")


def stat(frame: Axes, panel: Mapping[str, Any], answers: Sequence[tuple[Any, Series]], _: int) -> None:
    settings = panel["fieldConfig"]["defaults"]
    value = answers[0][1][1][-1][1] if answers else float("nan")
    text = show(value, settings["unit"])
    for mapping in settings.get("mappings", []):
        text = mapping["options"].get(f"{value:g}", {"text": text})["text"]
    ink, faint = INK, FAINT
    if panel["options"]["colorMode"] == "background":
        steps = settings["thresholds"]["steps"]
        name = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
        frame.set_facecolor(COLORS[name])
        ink = faint = "#ffffff"
    frame.text(0.5, 0.4, text, fontsize=20, weight="bold", ha="center", va="center", color=ink)
    frame.text(0.03, 0.95, panel["title"], fontsize=9, va="top", color=faint)


def lines(frame: Axes, panel: Mapping[str, Any], answers: Sequence[tuple[Any, Series]], rows: int) -> None:
    settings = panel["fieldConfig"]["defaults"]
    frame.text(0.02, 0.96, panel["title"], fontsize=9, weight="bold", va="top")
    if not answers:
        frame.text(0.5, 0.5, "no data", color=FAINT, ha="center", va="center")
        return
    place = frame.get_position()
    inner = (place.x0 + 0.045, place.y0 + 1.9 / rows, place.width - 0.055, place.height - 2.9 / rows)
    axes = frame.figure.add_axes(inner)
    for number, (target, (labels, points)) in enumerate(answers):
        times, values = zip(*points, strict=True)
        axes.plot(
            times, values, color=LINES[number % len(LINES)], linewidth=1.2, label=legend(target, labels)
        )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e7e8ea")
    axes.xaxis.set_major_locator(MinuteLocator())
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value, settings["unit"])))
    low, top = axes.get_ylim()
    axes.set_ylim(settings.get("min", low), settings.get("max", top if top > settings.get("min", low) else 1))
    axes.tick_params(labelsize=7)
    handles, names = axes.get_legend_handles_labels()
    fit = int(place.width * 190 / (6 + max(map(len, names))))
    frame.legend(
        handles, names, loc="lower left", ncols=max(1, min(fit, len(names))), fontsize=6, frameon=False,
        handlelength=1, columnspacing=1, borderaxespad=0.2,
    )  # fmt: skip


def table(frame: Axes, panel: Mapping[str, Any], answers: Sequence[tuple[Any, Series]], _: int) -> None:
    frame.text(0.02, 0.96, panel["title"], fontsize=9, weight="bold", va="top")
    hidden = panel["transformations"][0]["options"]["excludeByName"]
    latest = max((points[-1][0] for _, (_, points) in answers), default=None)
    rows = [[short(labels[name]) for name in sorted(labels) if name not in hidden]
            for _, (labels, points) in answers if points[-1][0] == latest]  # fmt: skip
    for number, row in enumerate(rows or [["no data"]]):
        frame.text(
            0.02, 0.82 - 0.09 * number, "   ".join(row), fontsize=8, va="top", color=INK if rows else FAINT
        )


def legend(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    text = str(target.get("legendFormat", ""))
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", short(value))
    return text


def short(value: str) -> str:
    """Return a UUID by its beginning: there is no room for twenty."""
    return f"{value[:8]}…" if len(value) == 36 else value


def show(value: float, unit: str) -> str:
    """Return a value in the unit of a panel, as Grafana would: 1.5 min, 12 MB, 3.1 Mb/s."""
    if value != value:  # NaN
        return "no data"
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return f"{value * 1000:.3g} ms" if value else "0 s"
    if unit == "percentunit":
        return f"{value * 100:.3g}%" if value >= 0.001 else "0%"
    names = {"bps": "b/s", "Bps": "B/s", "bytes": "B", "reqps": "/s"}
    if unit not in names:
        return f"{value:.4g}"
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}{names[unit]}"
    return f"{value:.3g} {names[unit]}"


if __name__ == "__main__":
    main()
