"""What is packed into a report, and what the page says: names cannot do harm, gaps are told, the size is bounded."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections import Counter
from dataclasses import fields, is_dataclass, replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recon.report
from recon.core.cameras import PinholeView
from recon.report.charts import count, histogram_svg, view_graph_svg
from recon.report.content import Histogram, Points, ReportContent
from recon.report.gather import photo_side, say_doubt, widest_angles
from recon.report.packing import STEPS, Blob, add_points, add_surface, box_of, start_of
from recon.report.page import report_html
from tests.support.report_inputs import NAMES, content, picture, sheet, view


def header_of(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="scene-header">(.*?)</script>', text, re.S)
    assert found is not None
    return json.loads(found[1])


def arrays_of(text: str) -> Any:
    """The header of the 3D view with its places replaced by arrays."""
    found = re.search(r'<script type="text/plain" id="scene-data">(.*?)</script>', text, re.S)
    assert found is not None
    data = gzip.decompress(base64.b64decode(found[1]))

    def filled(value: Any) -> Any:
        if isinstance(value, dict) and set(value) == {"at", "count", "type"}:
            return np.frombuffer(data, value["type"], value["count"], value["at"])
        if isinstance(value, dict):
            return {key: filled(one) for key, one in value.items()}
        return value

    return filled(header_of(text))


def world(part: Any, header: Any) -> np.ndarray:
    return part["xyz"].reshape(-1, 3) / STEPS * header["side"] + np.array(header["origin"])


@given(
    st.floats(1e-3, 1e6),
    st.tuples(*[st.floats(-1e7, 1e7)] * 3),
    st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_positions_come_back_to_half_a_step(scale: float, middle: tuple[float, ...], seed: int) -> None:
    xyz = np.random.default_rng(seed).normal(size=(300, 3)) * scale + np.array(middle)
    box = box_of([xyz], np.zeros((0, 3)))
    inside = box.inside(xyz)
    assert inside.mean() > 0.95
    back = box.steps(xyz[inside]) / STEPS * box.side + box.origin
    # Half a step, and what a double loses so far from the origin.
    assert np.abs(back - xyz[inside]).max() <= 0.5001 * box.side / STEPS + 1e-15 * np.abs(xyz).max()


def test_far_outliers_do_not_cost_precision() -> None:
    xyz = np.concatenate([np.random.default_rng(1).normal(size=(5000, 3)), [[1e6, 0, 0], [0, np.nan, 0]]])
    box = box_of([xyz], np.zeros((1, 3)))
    assert box.side < 50
    packed = add_points(Blob(), Points(xyz, np.zeros((len(xyz), 3), np.uint8)), box, 10_000)
    assert packed["count"] == 5000
    assert packed["outside"] == 2


def test_cameras_are_always_in_the_box() -> None:
    points = np.random.default_rng(2).normal(size=(1000, 3))
    centers = np.array([[30.0, 0, 0], [-25.0, 3, 1]])
    assert box_of([points], centers).inside(centers).all()


def test_colours_and_triangles_survive_the_packing() -> None:
    made = content(texture=False)
    header = arrays_of(report_html(made))
    surface = sheet(np.zeros(3))
    np.testing.assert_allclose(world(header["mesh"], header), surface.xyz, atol=header["side"] / STEPS)
    np.testing.assert_array_equal(header["mesh"]["index"].reshape(-1, 3), surface.faces)
    np.testing.assert_array_equal(header["mesh"]["rgb"].reshape(-1, 3), surface.rgb)
    # The dense points are shuffled: each must be there with its own colour.
    assert made.dense is not None
    shown = world(header["dense"], header)
    nearest = np.linalg.norm(shown[:50, None] - made.dense.xyz[None], axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(header["dense"]["rgb"].reshape(-1, 3)[:50], made.dense.rgb[nearest])


def test_coordinates_as_large_as_utm_keep_their_precision() -> None:
    offset = (412_345.25, 5_312_345.5, 431.75)
    header = arrays_of(report_html(content(offset)))
    np.testing.assert_allclose(
        world(header["mesh"], header), sheet(np.array(offset)).xyz, atol=header["side"] / STEPS + 1e-9
    )
    one = header["cameras"][0]
    center = np.array(one["center"]) * header["side"] + np.array(header["origin"])
    np.testing.assert_allclose(center, view(0, np.array(offset)).center, atol=1e-5)


def test_faces_out_of_the_box_go_and_the_others_stay() -> None:
    surface = sheet(np.zeros(3), rows=10)
    xyz = surface.xyz.copy()
    xyz[0] = np.nan
    box = box_of([surface.xyz], np.zeros((0, 3)))
    blob = Blob()
    packed = add_surface(blob, replace(surface, xyz=xyz), box)
    assert packed["faces"] == len(surface.faces) - np.isin(surface.faces, [0]).any(axis=1).sum()
    assert packed["index"]["count"] == 3 * packed["faces"]


def test_a_cloud_without_colours_is_grey() -> None:
    made = content()
    assert made.dense is not None
    made.dense = Points(made.dense.xyz, np.zeros_like(made.dense.rgb))
    assert set(arrays_of(report_html(made))["dense"]["rgb"].tolist()) == {150}


@pytest.mark.parametrize(
    "parts", [("surface",), ("surface", "dense"), ("surface", "dense", "sparse", "still")]
)
def test_what_was_not_made_is_not_shown(parts: tuple[str, ...]) -> None:
    made = content()
    for name in parts:
        setattr(made, name, None)
    header = header_of(report_html(made))
    assert header["mesh"] is None
    assert (header["dense"] is None) == ("dense" in parts)
    assert len(header["cameras"]) == 4
    assert header["start"] is not None


def test_nothing_at_all_still_makes_a_page() -> None:
    text = report_html(ReportContent("Reconstruction of nothing", failure="The stage ‘photos’ failed: <b>"))
    assert "scene-data" not in text.split("<script>")[0]
    assert "The stage ‘photos’ failed: &lt;b&gt;" in text
    assert "No photo was left out" in text


def test_a_doubtful_verdict_stands_first_with_what_to_do_and_once() -> None:
    reasons = [
        {"verdict": "doubtful", "what": "Two <halves> differ", "advice": "Add photos"},
        {"verdict": "doubtful", "what": "The focal length is uncertain", "advice": "Give --intrinsics"},
    ]
    made = ReportContent(
        "Reconstruction of a wall", facts=[("Trust", "doubtful: much text"), ("Photos", "8 given")]
    )
    made.warnings = ["doubtful: Two <halves> differ. Add photos", "1 photo was left out"]
    made.failure = "The stage ‘map’ failed: this is not a reconstruction. Two <halves> differ. Add photos"
    say_doubt(made, {"verdict": "doubtful", "reasons": reasons})
    text = report_html(made)
    assert text.index("may be wrong or stretched") < text.index('id="short"')
    assert text.count("Two &lt;halves&gt; differ") == 1
    assert text.index("Give --intrinsics") < text.index('id="short"')
    assert "much text" not in text
    assert "1 photo was left out" in text
    assert "map.refuse=false" in text
    sound = ReportContent("Reconstruction of a wall", facts=[("Trust", "sound. Good to 0.1%")])
    say_doubt(sound, {"verdict": "sound", "reasons": []})
    assert "Good to 0.1%" in report_html(sound)
    assert 'id="doubt"' not in report_html(sound)


def test_clouds_alone_have_a_first_look() -> None:
    box = box_of([np.random.default_rng(0).normal(size=(100, 3))], np.zeros((0, 3)))
    start = start_of([], np.random.default_rng(0).normal(size=(100, 3)), box)
    assert start is not None
    assert np.linalg.norm(np.array(start["eye"]) - start["target"]) > 0.5
    assert start_of([], np.zeros((0, 3)), box) is None


def test_names_do_no_harm() -> None:
    text = report_html(content())
    own = re.sub(r"<script(?: [^>]*)?>.*?</script>", "", text, flags=re.S)
    assert "<script" not in own
    assert not re.search(r"<img(?: [\w-]+=\"[^\"]*\")* *onerror", own)  # a name that ends its attribute
    assert text.count("<script") == 4  # header, data, three.js, the page's own
    for name in NAMES:
        assert unescape(own).count(name) >= 3
    assert header_of(text)["names"] == list(NAMES)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", own)
    assert "@import" not in own


class Elements(HTMLParser):
    """What a browser would make of a page: its elements and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


HARM = (
    """</title></script>"'><img src=x onerror=alert(1)><svg onload=alert(2)> {{ 7*7 }} javascript:alert(3)"""
)


def harmed(value: Any) -> Any:
    """A report with HARM in every text, whatever wrote it: names, EXIF, the recipe, what programs said."""
    if isinstance(value, str):
        return value if value in {"", "done"} else f"{value}{HARM}"
    if isinstance(value, list | tuple):
        return type(value)(harmed(one) for one in value)
    if isinstance(value, dict):
        return {harmed(key): harmed(one) for key, one in value.items()}
    if is_dataclass(value) and not isinstance(value, Histogram | PinholeView):
        return replace(value, **{one.name: harmed(getattr(value, one.name)) for one in fields(value)})
    return value


def test_no_text_becomes_an_element_or_a_script() -> None:
    made = content()
    made.missing, made.dropped, made.failure = ["a part"], ["2 pairs"], "the disk is full"
    bad = harmed(made)
    assert HARM in bad.photos[0].camera
    assert HARM in bad.recipe
    text = report_html(bad)
    for tag, attributes in Elements(text).found:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not str(attributes.get("href") or "").startswith("javascript"), tag
        assert attributes.get("src") != "x"
    tags = Counter(tag for tag, _ in Elements(text).found)
    assert tags == Counter(tag for tag, _ in Elements(report_html(made)).found)
    assert unescape(text).count(HARM) > 60  # all of it is there, to be read
    assert "{{ 7*7 }}" in text


def test_the_page_stays_below_its_limit() -> None:
    made = content()
    rng = np.random.default_rng(3)
    many = 420_000
    made.dense = Points(rng.normal(size=(many, 3)), rng.integers(0, 255, (many, 3)).astype(np.uint8))
    thirty = [replace(picture(i), data=rng.bytes(150_000)) for i in range(30)]
    made.photos = [replace(made.photos[0], picture=one) for one in thirty]
    text = report_html(made)
    assert len(text.encode()) < 25_000_000
    assert header_of(text)["dense"]["count"] == 400_000


def test_clouds_and_then_pictures_give_way() -> None:
    made = content()
    rng = np.random.default_rng(3)
    made.dense = Points(rng.normal(size=(90_000, 3)), rng.integers(0, 255, (90_000, 3)).astype(np.uint8))
    text = report_html(made, largest=1_600_000)
    assert len(text.encode()) < 1_600_000
    assert header_of(text)["dense"]["count"] < 90_000
    made.depth = [replace(picture(1), data=rng.bytes(300_000)) for _ in range(8)]
    text = report_html(made, largest=2_500_000)
    assert len(text.encode()) < 2_500_000
    assert re.search(r"\d pictures are left out: the page would become too large", text)


@pytest.mark.parametrize("whole", [True, False])
def test_bars_count_every_value(whole: bool) -> None:
    rng = np.random.default_rng(4)
    values = rng.integers(2, 12, 1000).astype(float) if whole else rng.exponential(1.0, 1000)
    bins = count(values, whole)
    assert bins.counts.sum() == 1000
    if whole:
        np.testing.assert_array_equal(bins.counts, np.bincount(values.astype(int))[2:])
    else:
        assert bins.beyond == (values > bins.edges[-1]).sum() > 0
        np.testing.assert_array_equal(bins.counts[:-1], np.histogram(values, bins.edges)[0][:-1])
    bars = re.findall(
        r'<rect class="mark"[^>]*height="([\d.]+)"><title>.*?: (\d+)</title>',
        histogram_svg(Histogram("x", "X", "px", values, whole)),
    )
    heights, numbers = np.array(bars, float).T
    assert numbers.sum() == 1000
    np.testing.assert_allclose(heights / heights.max(), numbers / numbers.max(), atol=1e-3)


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [5.0, np.nan, np.inf], list(range(5000)), [-1.0, 1.0]])
@pytest.mark.parametrize("whole", [True, False])
def test_odd_values_have_a_histogram(values: list[float], whole: bool) -> None:
    array = np.array(values, float)
    assert count(array, whole).counts.sum() == np.isfinite(array).sum()
    assert "nan" not in histogram_svg(Histogram("x", "X", "", array, whole)).lower()


def test_the_graph_draws_every_photo_and_pair() -> None:
    made = content()
    svg = view_graph_svg(made.photo_names, made.pairs)
    assert svg.count('class="photo') == 5
    assert svg.count('class="photo alone"') == 1
    assert svg.count('class="edge"') == 6
    assert svg.count('class="edge dropped"') == 1
    widths = {
        (int(a), int(b)): float(w)
        for a, b, w in re.findall(
            r'class="edge" [^>]*data-a="(\d)" data-b="(\d)"[^>]*stroke-width:([\d.]+)', svg
        )
    }
    assert max(widths, key=lambda pair: widths[pair]) == (2, 3)
    assert min(widths, key=lambda pair: widths[pair]) == (0, 1)


def test_widest_angles_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(5)
    xyz = rng.normal(size=(40, 3)) + np.array([0, 0, 8])
    cameras = rng.normal(size=(6, 3))
    seen = [(row, camera) for row in range(40) for camera in range(6) if rng.random() < 0.5]
    rng.shuffle(seen)
    rows = np.array([row for row, _ in seen])
    centers = cameras[[camera for _, camera in seen]]
    expected = []
    for row in range(40):
        rays = [xyz[row] - c for c in centers[rows == row]]
        if len(rays) > 1:
            expected.append(
                max(
                    np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
                    for i, a in enumerate(rays)
                    for b in rays[i + 1 :]
                )
            )
    np.testing.assert_allclose(widest_angles(xyz, rows, centers), expected, atol=1e-6)


def test_many_photos_are_shown_smaller() -> None:
    assert photo_side(11) == 720
    assert 96 <= photo_side(3000) < photo_side(300) < photo_side(60) < 720


def test_the_library_in_the_page_is_the_one_that_is_named() -> None:
    folder = Path(recon.report.__file__).parent / "vendor"
    digest = hashlib.sha256((folder / "three.min.js").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text()
    assert "MIT" in (folder / "LICENSE").read_text()
    assert "</script" not in (folder / "three.min.js").read_text()
