"""Charts as inline SVG that takes its colours from the page's style sheet, and pictures as data: URIs."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from PIL import Image
from skimage.segmentation import find_boundaries

from kidney_ssl.data.selection import CYST, KIDNEY, TUMOR

Points = Sequence[tuple[float, float]]
# Widest side in pixels and WebP quality, tried until a picture fits into its share of the page.
LADDER = ((960, 80), (720, 75), (540, 70), (400, 60), (280, 45), (180, 35))
OUTLINES = {KIDNEY: (86, 180, 233), CYST: (240, 228, 66), TUMOR: (255, 64, 64)}  # the tumour is drawn last
WIDE, TALL = 250, 180  # a panel, in the units of its view box
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 34


@dataclass(frozen=True)
class Axis:
    """Bounds, ticks and name of an axis."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    @classmethod
    def over(cls, label: str, values: Sequence[float], *, integer: bool = False) -> "Axis":
        """Make an axis that holds all finite values, with round ticks."""
        known = np.asarray([value for value in values if np.isfinite(value)] or [0.0, 1.0], dtype=float)
        low, high = float(known.min()), float(known.max())
        if low == high and integer:
            return cls(label, low - 0.5, high + 0.5, (low,))
        if low == high:
            low, high = min(0.0, 2 * low), max(0.0, 2 * high) or 1.0
        ticks = [float(tick) for tick in MaxNLocator(nbins=4, integer=integer).tick_values(low, high)]
        if integer:
            return cls(label, low, high, tuple(tick for tick in ticks if low <= tick <= high))
        return cls(label, ticks[0], ticks[-1], tuple(ticks))

    def share(self, value: float) -> float:
        """Say where a value lies: 0 at the low end, 1 at the high end."""
        if self.log:
            return float(np.log(value / self.low) / np.log(self.high / self.low))
        return (value - self.low) / (self.high - self.low)


UNIT = (0.0, 0.5, 1.0)


def _place(x: Axis, y: Axis, point: tuple[float, float]) -> tuple[float, float]:
    across = LEFT + x.share(point[0]) * (WIDE - LEFT - RIGHT)
    down = TALL - BOTTOM - y.share(point[1]) * (TALL - TOP - BOTTOM)
    return round(across, 1), round(down, 1)


def _line(x: Axis, y: Axis, points: Points) -> Markup:
    """Draw a line, with a dot where there is a single point."""
    known = [_place(x, y, point) for point in points if np.isfinite(point[1])]
    if len(known) == 1:
        return Markup('<circle cx="{}" cy="{}" r="3.5" class="dot"/>').format(*known[0])
    return Markup('<polyline points="{}"/>').format(" ".join(f"{a:g},{b:g}" for a, b in known))


def _frame(x: Axis, y: Axis) -> Markup:
    """Draw ticks, grid lines and names of both axes."""
    drawn = []
    for tick in y.ticks:
        _, down = _place(x, y, (x.low, tick))
        drawn.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text x="{}" y="{}" text-anchor="end">{:g}</text>'
            ).format(LEFT, WIDE - RIGHT, down, down, LEFT - 5, down + 3.5, tick)
        )
    for tick in x.ticks:
        across, _ = _place(x, y, (tick, y.low))
        drawn.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{:g}</text>').format(across, TALL - BOTTOM + 13, tick)
        )
    drawn.append(
        Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            (LEFT + WIDE - RIGHT) / 2, TALL - 5, x.label
        )
    )
    return Markup("").join(drawn)


@dataclass(frozen=True)
class Panel:
    """One of several small charts on the same axes."""

    title: str
    svg: Markup
    note: str = ""


def panels(
    name: str,
    series: Mapping[str, Sequence[Points]],
    x: Axis,
    y: Axis,
    *,
    marked: Mapping[str, Points] | None = None,
    notes: Mapping[str, str] | None = None,
    intervals: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
    diagonal: bool = False,
    reference: Points = (),
) -> list[Panel]:
    """Draw one small chart for each name, its own lines strong and all the others faint behind them.

    Any number of arms stays readable so, without a colour for each. The faint lines are drawn once and used again.

    Args:
        name: of the charts, unique on the page.
        series: name -> lines, each a sequence of points.
        x: horizontal axis; its label is printed.
        y: vertical axis; its label is for the caption of the caller.
        marked: name -> points with a ring around them, as the selected epoch.
        notes: name -> words under the title.
        intervals: name -> (where, low, high), drawn upright.
        diagonal: draw the line of chance.
        reference: draw this line as that of chance is drawn.
    """
    every = Markup("").join(_line(x, y, points) for lines in series.values() for points in lines)
    drawn = []
    for place, (title, lines) in enumerate(series.items()):
        known = [value for points in lines for _, value in points if np.isfinite(value)]
        said = f"{title}: {y.label} by {x.label}"
        said += f", from {known[0]:.3g} to {known[-1]:.3g}" if known else ", no figure"
        parts = [
            _frame(x, y),
            Markup('<g class="chance">{}</g>').format(_line(x, y, [(0, 0), (1, 1)])) if diagonal else "",
            Markup('<g id="{}" class="others">{}</g>').format(name, every)
            if place == 0
            else Markup('<use href="#{}"/>').format(name),
            Markup('<g class="chance">{}</g>').format(_line(x, y, reference)) if reference else "",
            Markup('<g class="own">{}</g>').format(Markup("").join(_line(x, y, points) for points in lines)),
        ]
        for where, low, high in (intervals or {}).get(title, ()):
            (across, bottom), (_, top) = _place(x, y, (where, low)), _place(x, y, (where, high))
            parts.append(
                Markup('<line class="whisker" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(across, bottom, top)
            )
        for point in (marked or {}).get(title, ()):
            if np.isfinite(point[1]):
                parts.append(Markup('<circle class="ring" cx="{}" cy="{}" r="4.5"/>').format(*_place(x, y, point)))
        svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            WIDE, TALL, said, Markup("").join(parts)
        )
        drawn.append(Panel(title, svg, (notes or {}).get(title, "")))
    return drawn


def histogram(values: np.ndarray, counts: np.ndarray, lines: Mapping[str, float], label: str) -> Markup:
    """Draw a histogram of values that occur `counts` times, with named vertical lines."""
    wide, tall, left, top, bottom = 720, 240, 10, 34, 34
    x = Axis.over(label, [*values, *lines.values()])
    heights, edges = np.histogram(values, bins=min(90, max(1, len(values))), weights=counts, range=(x.low, x.high))
    most = max(float(heights.max()), 1.0)

    def across(value: float) -> float:
        return round(left + x.share(value) * (wide - 2 * left), 1)

    parts = []
    for height, start, stop in zip(heights, edges[:-1], edges[1:], strict=True):
        if height:
            rise = round(float(height) / most * (tall - top - bottom), 1)
            width = round(max(across(stop) - across(start) - 1, 0.5), 1)
            parts.append(
                Markup('<rect class="bin" x="{}" y="{}" width="{}" height="{}"/>').format(
                    across(start), round(tall - bottom - rise, 1), width, rise
                )
            )
    ticks = Markup('<text x="{}" y="{}" text-anchor="middle">{:g}</text>')
    parts += [ticks.format(across(tick), tall - 18, tick) for tick in x.ticks[1:-1]]
    name = Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>')
    parts.append(name.format(wide / 2, tall - 3, label))
    bound = Markup('<line class="bound" x1="{0}" x2="{0}" y1="18" y2="{1}"/>')
    title_of = Markup('<text class="strong" x="{}" y="13" text-anchor="{}">{}</text>')
    for title, value in lines.items():
        place = across(value)
        # Away from each other, however near they are.
        anchor = "end" if value == min(lines.values()) else "start"
        parts += [bound.format(place, tall - bottom), title_of.format(place, anchor, title)]
    said = f"Histogram of {label}; " + ", ".join(lines)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        wide, tall, said, Markup("").join(parts)
    )


def boxes(picture: str, rectangles: Mapping[str, tuple[float, float, float, float]], said: str) -> Markup:
    """Draw rectangles, [top, bottom, left, right] in fractions of the side, over a square picture."""
    parts = [Markup('<image href="{}" width="300" height="300" preserveAspectRatio="none"/>').format(picture)]
    for name, (top, bottom, left, right) in rectangles.items():
        parts.append(
            Markup(
                '<rect class="region" x="{}" y="{}" width="{}" height="{}"/><text class="over" x="{}" y="{}">{}</text>'
            ).format(
                *(round(300 * value, 1) for value in (left, top, right - left, bottom - top)),
                round(300 * left + 4, 1),
                round(300 * top - 5, 1),
                name,
            )
        )
    return Markup('<svg class="photo" viewBox="0 0 300 300" role="img" aria-label="{}">{}</svg>').format(
        said, Markup("").join(parts)
    )


def grey(image: np.ndarray, mask: np.ndarray | None = None, side: int = 256) -> Image.Image:
    """Draw a slice, with the outlines of its mask.

    Args:
        image: (S, S) in [0, 1].
        mask: (S, S) uint8 label values, or None.
        side: of the picture in pixels; small slices are magnified by a whole factor, large ones reduced to it.
    """
    zoom = max(1, -(-side // max(image.shape)))
    values = (np.clip(np.nan_to_num(image), 0, 1) * 255).round().astype(np.uint8)
    canvas = np.repeat(values.repeat(zoom, 0).repeat(zoom, 1)[..., None], 3, axis=2)
    if mask is not None:
        for value, colour in OUTLINES.items():
            inside = (mask == value).repeat(zoom, 0).repeat(zoom, 1)
            canvas[find_boundaries(inside, mode="inner")] = colour
    picture = Image.fromarray(canvas)
    if max(picture.size) > 2 * side:
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    return picture


@dataclass(frozen=True)
class Picture:
    """A picture inside the page: data: URI, size in pixels, and what it shows in words."""

    uri: str
    width: int
    height: int
    alt: str


def embed(picture: bytes | Image.Image, alt: str, limit: int) -> Picture | None:
    """Turn a picture into a data: URI of at most `limit` bytes before base64.

    A PNG or WebP that fits stays as it is, any other becomes a smaller and smaller WebP.

    Returns:
        None if not even the smallest fits.
    """
    if isinstance(picture, Image.Image):
        buffer = BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        picture = buffer.getvalue()
    with Image.open(BytesIO(picture)) as image:
        if len(picture) <= limit:
            return Picture(_uri(str(image.format).lower(), picture), *image.size, alt)
        full = image.convert("RGB")
    for widest, quality in LADDER:
        smaller = full.copy()
        smaller.thumbnail((widest, 3 * widest), Image.Resampling.LANCZOS)
        buffer = BytesIO()
        smaller.save(buffer, "WEBP", quality=quality, method=4)
        if len(buffer.getvalue()) <= limit:
            return Picture(_uri("webp", buffer.getvalue()), *smaller.size, alt)
    return None


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"
