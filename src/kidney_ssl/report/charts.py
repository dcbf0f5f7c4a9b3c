"""Charts as SVG inside the page: drawn by matplotlib, coloured by the page's style sheet, the same bytes every time."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from io import StringIO
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context, rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from kidney_ssl.report.names import worded
from kidney_ssl.statistics.result import Estimate

# Placeholders for colours of the style sheet, so that dark mode and print can change them without redrawing.
INK, SOFT, LINE, ACCENT, FAINT, PAPER = (f"#00000{place}" for place in range(1, 7))
VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", ACCENT: "accent", FAINT: "other", PAPER: "paper"}
ARM_COLOURS = 12
VARIABLES |= {f"#0001{place:02x}": f"arm{place}" for place in range(ARM_COLOURS)}
MARKERS = "osD^vP*X<>ph"
MARKS = {"better": ("^", True), "worse": ("v", True), "equivalent": ("s", True)}  # all others: an open circle
STYLE = rc_params_from_file(str(files("kidney_ssl.report") / "charts.mplstyle"))
Values = Sequence[float] | np.ndarray
PANEL = (160, 146)  # width and height of a small chart, px


@dataclass(frozen=True)
class Axis:
    """Name and bounds of an axis; None: chosen from the data."""

    label: str
    low: float | None = None
    high: float | None = None
    ticks: Sequence[float] | None = None
    log: bool = False


@dataclass(frozen=True)
class Curve:
    """A line through points, with a band if its ends are known."""

    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None


@dataclass(frozen=True)
class Panel:
    """One of several small charts on the same axes."""

    title: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True)
class ForestRow:
    """A row of a forest plot: name, difference with its simultaneous interval, verdict, and the arm's own metric."""

    title: str
    difference: Estimate
    verdict: str
    value: Estimate


def _figure(width: float, height: float) -> Figure:
    """Make an empty figure of that many px: matplotlib's 72 points an inch are px in the page."""
    return Figure(figsize=(width / 72, height / 72))


def _svg(figure: Figure, name: str, said: str) -> Markup:
    """Write a figure as SVG for the page: sizes in px, short numbers, unique ids, colours of the style sheet."""
    buffer = StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>|font-family: [^;\"]*;?", "", text, flags=re.S)
    text = " ".join(text[text.index("<svg") :].split()).replace("> <", "><").replace("<defs></defs>", "")
    text = re.sub(r"(\.\d\d)\d+", r"\1", text)
    text = re.sub(r' id="([^"]+)"', lambda one: f' id="{name}-{one[1]}"' if f"#{one[1]}" in text else "", text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    text = re.sub(r'(<svg[^>]*? width="[\d.]+)pt" height="([\d.]+)pt"', r'\1" height="\2"', text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(said)}" ', 1))


def _dress(axes: Axes, x: Axis, y: Axis) -> None:
    """Label the axes, set bounds and a few ticks."""
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)
    if x.log:
        axes.set_xscale("log")
    for axis, one, limits in ((axes.xaxis, x, axes.set_xlim), (axes.yaxis, y, axes.set_ylim)):
        limits(one.low, one.high)
        if one.ticks is None:
            axis.set_major_locator(MaxNLocator(nbins=3, integer=one.label == "epoch"))
        else:
            axis.set_major_locator(FixedLocator(list(one.ticks)))
            axis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in one.ticks]))
        axis.set_minor_locator(NullLocator())


@rc_context(STYLE)
def panels(
    name: str,
    arms: Mapping[str, Sequence[Curve]],
    x: Axis,
    y: Axis,
    *,
    reference: Sequence[Curve] = (),
    dashed: Curve | None = None,
    rings: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    notes: Mapping[str, str] | None = None,
    shared: bool = True,
) -> list[Panel]:
    """Draw a small chart for each title that has a curve with two or more points: its curves over the grey reference.

    `dashed` is the curve of chance or of no model, `rings` are points to ring by title, and `notes` are words under
    titles. With `shared` the charts have the same vertical scale. `name` is unique on the page, as for all charts.
    """
    shown = {title: curves for title, curves in arms.items() if any(len(one.x) > 1 for one in curves)}
    if shared and y.low is None:
        every = [one for curves in (*shown.values(), reference) for one in curves]
        known = [v for one in every for end in (one.y, one.low, one.high) if end is not None for v in end]
        low, high = (float(end(known)) for end in (np.nanmin, np.nanmax)) if known else (0.0, 1.0)
        y = replace(y, low=low - 0.05 * (high - low or 1), high=high + 0.05 * (high - low or 1))
    made = []
    for place, (title, curves) in enumerate(shown.items()):
        figure = _figure(*PANEL)
        axes = figure.add_axes((0.34, 0.26, 0.58, 0.7))
        if dashed:
            axes.plot(dashed.x, dashed.y, color=SOFT, linewidth=1, dashes=(3, 3))
        for colour, several in ((FAINT, () if curves is reference else reference), (ACCENT, curves)):
            for one in several:
                if one.low is not None and one.high is not None:
                    axes.fill_between(one.x, one.low, one.high, color=colour, alpha=0.22, linewidth=0)
                axes.plot(one.x, one.y, color=colour, marker="o" if len(one.x) < 7 else None, markersize=3)
        for point in (rings or {}).get(title, ()):
            axes.plot(*point, marker="o", markersize=8, markerfacecolor="none", color=INK, markeredgewidth=1.4)
        _dress(axes, x, y)
        said = f"{title}: {y.label} by {x.label}, from {curves[0].y[0]:.3g} to {curves[0].y[-1]:.3g}"
        made.append(Panel(title, _svg(figure, f"{name}{place}", said), (notes or {}).get(title, "")))
    return made


@rc_context(STYLE)
def forest(
    name: str, rows: Sequence[ForestRow], *, metric: str, baseline: str, margin: float, width: int, bound: float
) -> Markup:
    """Draw a forest plot: differences from the baseline with simultaneous intervals, the margin as a band.

    The axis goes from -bound to bound. `width` is in px; if it is below 600, names are above their rows.
    """
    narrow = width < 600
    step, top, bottom = (34 if narrow else 23), 26, 50
    left, right = (8, 56) if narrow else (185, 292)
    across, height = width - left - right, top + bottom + step * len(rows)
    figure = _figure(width, height)
    axes = figure.add_axes((left / width, bottom / height, across / width, step * len(rows) / height))
    axes.axvspan(-margin, margin, color=ACCENT, alpha=0.13, linewidth=0)
    axes.axvline(0, color=SOFT, linewidth=1)

    def write(px: float, down: float, text: str, colour: str = INK, side: Any = "left") -> None:
        axes.text(px / across, down, text, color=colour, ha=side, va="center", transform=axes.get_yaxis_transform())

    write(across + 12, -0.9, metric if not narrow or len(metric) < 7 else "arm", SOFT)
    if not narrow:
        write(across + 148, -0.9, "difference", SOFT)
    for place, row in enumerate(rows):
        one, (marker, filled) = row.difference, MARKS.get(row.verdict, ("o", False))
        down, colour = place + 0.2 * narrow, ACCENT if filled else INK
        if one.low is not None and one.high is not None:
            axes.plot([max(one.low, -bound), min(one.high, bound)], [down] * 2, color=colour, linewidth=1.6)
        if one.value is not None:
            axes.plot(one.value, down, marker, c=colour, markersize=8, markerfacecolor=colour if filled else PAPER)
        write(across + 12, down, worded(row.value, interval=not narrow))
        if narrow:
            write(0, place - 0.25, row.title)
        else:
            write(-8, down, row.title, side="right")
            write(across + 148, down, worded(one, signed=True), SOFT)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(-bound, bound), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if narrow else 9, symmetric=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.2f}" if abs(value) > 1e-9 else "0")
    axes.set_xlabel(f"difference in {metric}\n← worse than {baseline}  |  better →")
    told = [f"{one.title} {worded(one.difference, signed=True)}, {one.verdict}" for one in rows]
    return _svg(figure, name, f"Forest plot: {metric} minus that of {baseline}; {'; '.join(told)}")


@rc_context(STYLE)
def scatter(name: str, points: Sequence[tuple[str, float, Estimate]], x: str, y: str, *, width: int) -> Markup:
    """Draw one mark per arm, with its own colour and shape, and the interval of its metric as a vertical line.

    Points are name, position on the horizontal axis and metric. The legend is beside the chart, or below it if the
    width is under 600 px.
    """
    narrow = width < 600
    key = 18 * len(points) if narrow else 0
    height, across = 300 + key, width - (70 if narrow else 280)
    figure = _figure(width, height)
    axes = figure.add_axes((58 / width, (48 + key) / height, across / width, 240 / height))
    for place, (title, cost, one) in enumerate(points):
        colour = f"#0001{place % ARM_COLOURS:02x}"
        if one.low is not None and one.high is not None:
            axes.plot([cost, cost], [one.low, one.high], color=colour, linewidth=1.2, alpha=0.6)
        marker = MARKERS[(place + place // ARM_COLOURS) % len(MARKERS)]
        axes.plot(cost, one.value or 0.0, marker, color=colour, markersize=8, label=title)
    _dress(axes, Axis(x), Axis(y))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4 if narrow else 8))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    where: Any = {"bbox_to_anchor": (-0.1, -0.18)} if narrow else {"bbox_to_anchor": (1.02, 1.03)}
    axes.legend(loc="upper left", fontsize=11, handletextpad=0.2, labelspacing=0.35, **where)
    return _svg(figure, name, f"{y} by {x}: " + ", ".join(f"{title} {cost:.3g}" for title, cost, _ in points))


@rc_context(STYLE)
def histogram(values: np.ndarray, counts: np.ndarray, lines: Mapping[str, float], label: str) -> Markup:
    """Draw a histogram of values that occur `counts` times, with named vertical lines."""
    figure = _figure(680, 230)
    axes = figure.add_axes((0.09, 0.2, 0.89, 0.68))
    axes.hist(values, bins=min(90, max(1, len(values))), weights=counts, color=ACCENT, alpha=0.75)
    for title, value in lines.items():
        axes.axvline(value, color=INK, linewidth=1.3, dashes=(4, 3))
        axes.text(value, 1.03, title, transform=axes.get_xaxis_transform(), ha="right")
    _dress(axes, Axis(label), Axis("pixels"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
    return _svg(figure, "histogram", f"Histogram of {label}; {', '.join(lines)}")
