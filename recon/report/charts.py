"""Charts as SVG: they need no script and follow the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float, Float64

from recon.report.content import Histogram, PairEntry

_WIDTH, _HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 44

# The axis ends at this quantile; what is beyond is counted in the last bar.
_CUT = 0.995

# Up to so many different whole numbers each have a bar.
_MOST_WHOLE = 40


@dataclass(frozen=True)
class Bins:
    """A histogram, counted.

    Attributes:
        edges: (n + 1,) ascending. counts: (n,), together the number of finite values.
        beyond: how many of the last bar's lie beyond its upper edge.
    """

    edges: Float64[np.ndarray, " n_plus_1"]
    counts: Float64[np.ndarray, " n"]
    beyond: int


def count(values: Float[np.ndarray, " n"], whole: bool = False, bars: int = 36) -> Bins:
    """Count values into bars of equal width from the least (or zero) up to nearly the largest.

    Raises:
        ValueError: no finite value.
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        raise ValueError("no finite value to count")
    low, high = float(finite.min()), float(finite.max())
    if whole and high - low <= _MOST_WHOLE:
        edges = np.arange(low - 0.5, high + 1.0)
    else:
        end = float(np.quantile(finite, _CUT))
        if whole:
            step = max(1.0, np.ceil((end - low + 1) / bars))
            edges = low - 0.5 + step * np.arange(np.ceil((end - low + 1) / step) + 1)
        else:
            low = 0.0 if 0 <= low < 0.5 * end else low
            end = end if end > low else low + max(abs(low), 1e-6)
            edges = np.linspace(low, end, bars + 1)
    beyond = int((finite > edges[-1]).sum())
    counts = np.histogram(np.minimum(finite, edges[-1]), edges)[0].astype(np.float64)
    return Bins(edges, counts, beyond)


def histogram_svg(histogram: Histogram) -> str:
    """Bars over labelled axes, with a line at the median; every bar says its count when pointed at."""
    finite = np.asarray(histogram.values, np.float64)
    finite = finite[np.isfinite(finite)]
    bins = count(finite, histogram.whole)
    most = float(bins.counts.max())
    first, last = float(bins.edges[0]), float(bins.edges[-1])

    def x(value: float) -> float:
        return _LEFT + (value - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / most * (_HEIGHT - _TOP - _BOTTOM)

    median = float(np.median(finite))
    unit = _unit(histogram)
    said = (
        f"{histogram.title}: {len(finite)} values, median {median:.3g}{unit}, mean {finite.mean():.3g}{unit}"
    )
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(said)}" data-chart="{histogram.key}">'
    ]
    for tick in _ticks(0.0, most, 4, whole=True):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
            f'<text class="soft" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{_short(tick)}</text>'
        )
    for left, right, number in zip(bins.edges[:-1], bins.edges[1:], bins.counts, strict=True):
        if number == 0:
            continue
        if histogram.whole:
            low, high = int(np.ceil(left)), int(np.floor(right))
            name = f"{low}" if low == high else f"{low} to {high}"
        else:
            name = f"{left:.3g} to {right:.3g}"
        end = bins.beyond if right == last and bins.beyond else 0
        more = f" and beyond ({end} of them)" if end else ""
        width = max(x(right) - x(left) - 1, 0.6)
        parts.append(
            f'<rect class="mark" x="{x(left) + 0.5:.2f}" y="{y(number):.2f}" width="{width:.2f}" '
            f'height="{_HEIGHT - _BOTTOM - y(number):.2f}"><title>{name}{unit}{more}: {int(number)}</title></rect>'
        )
    base = _HEIGHT - _BOTTOM
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
    for tick in _ticks(first, last, 6, whole=histogram.whole):
        parts.append(
            f'<line class="axis" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{base}" y2="{base + 4}"/>'
            f'<text class="soft" x="{x(tick):.1f}" y="{base + 18}" text-anchor="middle">{tick:g}</text>'
        )
    axis = f"{histogram.title} ({histogram.unit})" if histogram.unit else histogram.title
    parts.append(
        f'<text class="soft" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(axis)}</text>"
    )
    at = min(max(x(median), _LEFT), _WIDTH - _RIGHT)
    right_half = at > 0.6 * _WIDTH
    parts.append(
        f'<line class="median" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{base}"/>'
        f'<text class="halo" x="{at + (-6 if right_half else 6):.1f}" y="{_TOP + 10}" '
        f'text-anchor="{"end" if right_half else "start"}">median {median:.3g}{escape(unit)}</text></svg>'
    )
    return "".join(parts)


def in_words(histogram: Histogram) -> str:
    """Describe a histogram in numbers."""
    values = np.asarray(histogram.values, np.float64)
    values = values[np.isfinite(values)]
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    unit = _unit(histogram)
    text = (
        f"{len(values)} values; median {middle:.3g}{unit}, mean {values.mean():.3g}{unit}, "
        f"90% between {low:.3g} and {high:.3g}{unit}"
    )
    beyond = count(values, histogram.whole).beyond
    return f"{text}; the last bar holds the {beyond} beyond it too" if beyond else text


def _unit(histogram: Histogram) -> str:
    return histogram.unit if histogram.unit in {"", "°"} else f" {histogram.unit}"


def view_graph_svg(names: Sequence[str], pairs: Sequence[PairEntry]) -> str:
    """Photos on a circle in order, joined as strongly as their pairs have inliers; dropped pairs are dotted.

    Nodes and edges carry their numbers (data-photo, data-pair), so that a script can light them up.
    """
    size, radius = 700, 205
    middle = size / 2
    total = len(names)
    angle = -np.pi / 2 + 2 * np.pi * np.arange(total) / max(total, 1)
    at = middle + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    most = max((pair.inliers for pair in pairs), default=1) or 1
    kept = sum(pair.kept for pair in pairs)
    parts = [
        f'<svg viewBox="0 0 {size} {size}" role="img" id="graph" '
        f'aria-label="View graph: {total} photos, {kept} verified pairs">'
    ]
    order = sorted(range(len(pairs)), key=lambda row: (pairs[row].kept, pairs[row].inliers))
    for row in order:
        pair = pairs[row]
        (x1, y1), (x2, y2) = at[pair.a], at[pair.b]
        said = f"{names[pair.a]} – {names[pair.b]}: {pair_text(pair)}"
        style = ""
        if pair.kept:
            share = pair.inliers / most
            style = f' style="stroke-width:{1 + 5 * share:.2f};stroke-opacity:{0.3 + 0.65 * share:.2f}"'
        parts.append(
            f'<line class="edge{"" if pair.kept else " dropped"}" data-pair="{row}" data-a="{pair.a}" '
            f'data-b="{pair.b}" data-inliers="{pair.inliers}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" '
            f'y2="{y2:.1f}"{style}><title>{escape(said)}</title></line>'
        )
    joined = {photo for pair in pairs if pair.kept for photo in (pair.a, pair.b)}
    dot = float(np.clip(2.2 * radius / max(total, 1), 4, 13))
    for photo, name in enumerate(names):
        x, y = at[photo]
        number = f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{photo + 1}</text>' if dot > 8 else ""
        label = ""
        if total <= 60:
            turn = float(np.degrees(angle[photo]))
            left = np.cos(angle[photo]) < -1e-9
            lx, ly = middle + (radius + dot + 7) * np.array([np.cos(angle[photo]), np.sin(angle[photo])])
            short = name.rsplit("/", 1)[-1]
            short = short if len(short) <= 18 else f"…{short[-17:]}"
            label = (
                f'<text class="name" x="{lx:.1f}" y="{ly:.1f}" text-anchor="{"end" if left else "start"}" '
                f'transform="rotate({turn + 180 if left else turn:.2f} {lx:.1f} {ly:.1f})">{escape(short)}</text>'
            )
        parts.append(
            f'<g class="photo{"" if photo in joined else " alone"}" data-photo="{photo}" tabindex="0" role="button" '
            f'aria-label="{escape(name)}"><title>{escape(name)}</title>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{dot:.1f}"/>{number}{label}</g>'
        )
    return "".join(parts) + "</svg>"


def pair_text(pair: PairEntry) -> str:
    """Describe a pair in words."""
    if not pair.kept:
        return f"dropped; {pair.sparse} sparse matches"
    text = f"{pair.inliers} inliers, {pair.share:.0%} of the matches, {pair.model}"
    return f"{text}, {pair.angle:.1f}° between the rays" if pair.angle is not None else text


def _ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """Round numbers between two values, about ``count`` steps apart at most."""
    rough = max(high - low, 1e-12) / count
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [power * round_one for round_one in (1, 2, 2.5, 5, 10)]
    if whole:
        steps = [step for step in (*steps, 1.0) if step >= 1 and step == round(step)]
    step = min((one for one in steps if one >= rough * (1 - 1e-9)), default=max(steps))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(number * step) for number in range(first, last + 1)]


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= 10 * size or (value >= size and value % (size / 10) == 0):
            return f"{value / size:g}{letter}"
    return f"{value:g}"
