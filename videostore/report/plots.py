"""The drawings of a report, as SVG. The only place that imports matplotlib."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter, StrMethodFormatter

from videostore.report.facts import ACCESSES, Month

_BLUE, _RED, _GREY = "#1f5f8b", "#b3261e", "#5f6b73"
_SHADES = ("#9dbfd6", "#1f5f8b", "#0c3047", "#c9a227")
_CEILING_DAYS = 30
_WHOLE = 1.5
"""An axis that reaches further has whole numbers only."""
mpl.rcParams.update(
    {
        "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _GREY,
        "svg.hashsalt": "videostore",
        "xtick.color": _GREY, "ytick.color": _GREY, "axes.axisbelow": True,
    }
)  # fmt: skip


def ages(month: Month) -> str:
    """How old the footage was that was held at the end."""

    def draw(axes: Axes) -> None:
        top = max([_CEILING_DAYS, *month.ages])
        days = range(top + 1)
        colors = [_RED if day >= _CEILING_DAYS else _BLUE for day in days]
        axes.bar([day + 0.5 for day in days], [month.ages[day] for day in days], width=0.9, color=colors)
        axes.axvline(_CEILING_DAYS, color=_RED, linewidth=1.5)
        axes.annotate("30 days", (_CEILING_DAYS, 1), xycoords=("data", "axes fraction"), color=_RED,
                      ha="right", va="top", xytext=(-4, 0), textcoords="offset points")  # fmt: skip
        axes.set(xlabel="age in days", ylabel="segments held", xlim=(0, top + 1))

    return _svg(draw)


def margins(month: Month) -> str:
    """How long before the deadline keys were destroyed and absence was confirmed."""

    def draw(axes: Axes) -> None:
        series = [_minutes(month.key_margins), _minutes(month.absence_margins)]
        low, high = min([0.0, *series[0], *series[1]]), max([1.0, *series[0], *series[1]])
        bins = [low + (high - low) * step / 30 for step in range(31)]
        labels = ["key destroyed", "bytes confirmed absent"]
        axes.hist(series, bins=bins, color=[_SHADES[1], _SHADES[0]], label=labels)
        axes.axvline(0, color=_RED, linewidth=1.5)
        axes.annotate("deadline", (0, 1), xycoords=("data", "axes fraction"), color=_RED, va="top",
                      xytext=(4, 0), textcoords="offset points")  # fmt: skip
        axes.set(xlabel="minutes left before the deadline (less than 0 is late)", ylabel="keys; camera hours")
        axes.invert_xaxis()
        axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return _svg(draw)


def deletions(month: Month) -> str:
    """Segments deleted on each day."""

    def draw(axes: Axes) -> None:
        first, last = month.span.start.date(), month.span.end.date()
        days = [first + timedelta(days=number) for number in range((last - first).days)]
        axes.bar([day.day for day in days], [month.deleted_on[day] for day in days], color=_BLUE)
        axes.set(xlabel=f"day of {_name(first)}", ylabel="segments deleted", xlim=(0.4, len(days) + 0.6))

    return _svg(draw)


def accesses(month: Month) -> str:
    """Accesses by purpose and kind."""
    purposes = sorted({purpose for purpose, _ in month.accesses})
    table = {what: [month.accesses[purpose, what] for purpose in purposes] for what in ACCESSES}
    return _svg(lambda axes: _stacked(axes, purposes, table, "accesses"), bars=len(purposes))


def refusals(month: Month) -> str:
    """Refusals by reason."""
    ordered = month.refusals.most_common()[::-1]
    names, counts = [name for name, _ in ordered], [float(count) for _, count in ordered]
    return _svg(lambda axes: _bars(axes, names, counts, "refusals"), bars=len(names))


def gaps(month: Month) -> str:
    """Camera hours without footage, by reason."""
    reasons = [*month.gaps][::-1]
    hours = [month.gaps[reason] / timedelta(hours=1) for reason in reasons]
    return _svg(lambda axes: _bars(axes, reasons, hours, "camera hours", places=1), bars=len(reasons))


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], label: str, places: int = 0) -> None:
    drawn = axes.barh(names, values, color=_BLUE, height=0.6)
    axes.bar_label(drawn, labels=[f"{value:,.{places}f}" for value in values], padding=3, color=_GREY)
    axes.set(xlabel=label, xlim=(0, max([1.0, *values]) * 1.12))


def _stacked(axes: Axes, names: Sequence[str], table: Mapping[str, Sequence[int]], label: str) -> None:
    left = [0] * len(names)
    for (what, values), color in zip(table.items(), _SHADES, strict=True):
        axes.barh(names, values, left=left, color=color, label=what, height=0.5)
        left = [before + value for before, value in zip(left, values, strict=True)]
    axes.set(xlabel=label, xlim=(0, max([1, *left]) * 1.05))
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _svg(draw: Callable[[Axes], None], *, bars: int = 0) -> str:
    """Draw at the width of a page; as high as so many horizontal ``bars`` need."""
    figure = Figure(figsize=(6.9, 0.8 + 0.32 * bars if bars else 2.3), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="both", color="#e3e7ea", linewidth=0.7)
    draw(axes)
    for axis in (axes.xaxis, axes.yaxis):
        if isinstance(axis.get_major_formatter(), ScalarFormatter):
            if axis.get_view_interval()[1] > _WHOLE:
                axis.set_major_locator(MaxNLocator("auto", integer=True))
            axis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None}, transparent=True)
    return written.getvalue()


def _minutes(margins: Sequence[timedelta]) -> list[float]:
    return [margin / timedelta(minutes=1) for margin in margins]


def _name(day: date) -> str:
    return f"{day:%B %Y}"
