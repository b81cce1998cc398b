"""The files of a comparison: complete, safe, and readable in a browser without a network."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from recon.compare.page import LARGEST, as_html
from recon.compare.tables import as_csv, as_data, as_json
from tests.support.compare_inputs import PHOTOS, result


def pictured(folder: Path) -> Any:
    made = result(folder)
    (folder / "pictures").mkdir(exist_ok=True)
    for label in ("good", "same"):
        cv2.imwrite(str(folder / "pictures" / f"{label}.jpg"), np.full((60, 90, 3), 120, np.uint8))
    panels = [
        {"label": n, "file": f"{n}.jpg", "covered": 0.5, "good": 0.9, "count": 10} for n in ("good", "same")
    ]
    made.pictures = {
        "pairs": [{"a": PHOTOS[0], "b": PHOTOS[1], "sparse": n, "panels": panels} for n in (50, 20)],
        "depth": [{"photo": PHOTOS[2], "panels": panels}],
        "meshes": [],
        "left_out": [],
    }
    return made


def html_of(folder: Path, scenes: int = 1, sweep: bool = False) -> str:
    results = [pictured(folder) for _ in range(scenes)]
    for number, one in enumerate(results):
        one.scene = type(one.scene)(f"made-up {number}", folder)
    axis = ("zoom", [str(n + 1) for n in range(scenes)]) if sweep else None
    return as_html(as_data(results, axis), [folder / "pictures"] * scenes)


def test_csv_has_every_number(tmp_path: Path) -> None:
    data = as_data([result(tmp_path)])
    rows = list(csv.DictReader(io.StringIO(as_csv(data))))
    assert [row["contender"] for row in rows] == ["good", "same", "worse", "broken</script><b>"]
    for row, one in zip(rows, data["scenes"][0]["contenders"], strict=True):
        assert row["state"] == one["state"]
        for name, value in one["metrics"].items():
            assert (row[name] == "") if value is None else float(row[name]) == value
        if "poses.mean_error" in one["intervals"]:
            low, high = one["intervals"]["poses.mean_error"]
            assert low < float(row["poses.mean_error"]) < high
            assert float(row["poses.mean_error.low"]) == low
    assert rows[2]["mesh.f_20mm"] == ""
    assert {row["cost.seconds.rank"] for row in rows} == {"best", ""}
    assert json.loads(as_json(data))["scenes"][0]["contenders"][3]["error"].startswith("it said </script>")


def test_the_page_is_one_file_and_says_what_was_said(tmp_path: Path) -> None:
    text = html_of(tmp_path)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "@import" not in text
    assert text.count("</script>") == 2  # the data's and the code's: what a contender said ends neither
    assert "alert(1)</script>" not in text
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found is not None
    data = json.loads(found[1])
    assert (
        data["scenes"][0]["contenders"][3]["error"] == "it said </script><script>alert(1)</script> & stopped"
    )
    assert set(data["images"]) == {"0/good.jpg", "0/same.jpg"}


def test_pictures_give_way_before_the_page_grows_too_large(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2400, 3000, 3)).astype(np.uint8)
    made = pictured(tmp_path)
    for label in ("good", "same"):
        cv2.imwrite(str(tmp_path / "pictures" / f"{label}.jpg"), noise, [cv2.IMWRITE_JPEG_QUALITY, 100])
    text = as_html(as_data([made]), [tmp_path / "pictures"])
    assert len(text.encode()) < LARGEST + 200_000 < 15_000_000


@pytest.fixture
def opened(open_offline: Any) -> Any:
    """Opens a page in a window of the given size; see ``open_offline``."""

    def visit(text: str, width: int = 1280, height: int = 900) -> Any:
        return open_offline(text, viewport={"width": width, "height": height})

    return visit


def column(page: Any, number: int) -> list[str]:
    return [cell.inner_text() for cell in page.locator(f"#short-table tbody tr > :nth-child({number})").all()]


def test_tables_sort(opened: Any, tmp_path: Path) -> None:
    page = opened(html_of(tmp_path))
    heads = [head.inner_text().split("\n")[0] for head in page.locator("#short-table thead th").all()]
    cost = heads.index("seconds in all") + 1
    button = page.locator(f"#short-table thead th:nth-child({cost}) button")
    button.click()
    assert page.locator(f"#short-table thead th:nth-child({cost})").get_attribute("aria-sort") == "ascending"
    assert [float(text.split()[0]) for text in column(page, cost)] == [1.0, 10.0, 20.0, 30.0]
    button.click()
    assert [float(text.split()[0]) for text in column(page, cost)] == [30.0, 20.0, 10.0, 1.0]
    page.locator("#short-table thead th:first-child button").focus()
    page.keyboard.press("Enter")
    assert [name.split("\n")[0].removesuffix("failed").strip() for name in column(page, 1)][1:] == [
        "good",
        "same",
        "worse",
    ]
    score = heads.index("mesh F 20 mm") + 1
    page.locator(f"#short-table thead th:nth-child({score}) button").click()
    assert [text.split()[0] for text in column(page, score)] == [
        "80.0%",
        "70.0%",
        "–",
        "–",
    ]  # nothing comes last


def test_charts_draw_what_the_data_says(opened: Any, tmp_path: Path) -> None:
    page = opened(html_of(tmp_path))
    page.select_option("#bar-controls select", "cost.seconds")
    bars = page.locator("#bar-chart svg rect.bar")
    widths = [float(bar.get_attribute("width")) for bar in bars.all()]
    np.testing.assert_allclose(np.array(widths) / widths[-1], [1 / 30, 10 / 30, 20 / 30, 1], rtol=0.02)
    page.select_option("#bar-controls select", "poses.mean_error")
    assert page.locator("#bar-chart svg path.whisker").count() == 3
    assert page.locator("#curve-chart svg path.curve").count() == 3
    assert page.locator("#trade-chart svg").count() == 1
    page.locator("#bar-chart .legend button", has_text="worse").click()
    assert page.locator("#bar-chart svg rect.bar").count() == 2
    assert page.locator("#curve-chart svg path.curve").count() == 2
    page.locator("#curve-chart > svg").hover(position={"x": 300, "y": 100})
    assert "good" in page.locator("#curve-chart .readout").inner_text()


def test_marks_and_failures_are_shown(opened: Any, tmp_path: Path) -> None:
    page = opened(html_of(tmp_path))
    assert "it said </script><script>alert(1)</script> & stopped" in page.locator("#failures").inner_text()
    assert page.locator("#short-table td.best").count() >= 2
    assert page.locator("#short-table td.tie").count() == 1
    assert (
        "cannot" in page.locator("#headlines").inner_text()
        or "not to be told" in page.locator("#headlines").inner_text()
    )


def test_pictures_open_and_pairs_can_be_chosen(opened: Any, tmp_path: Path) -> None:
    page = opened(html_of(tmp_path))
    assert page.locator("#picture-groups img").count() == 4
    assert page.locator("#picture-groups img").first.evaluate("image => image.naturalWidth") == 90
    page.locator("#picture-groups select").first.select_option("1")
    page.locator("#picture-groups figure button").first.click()
    assert page.locator("dialog[open] img").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_several_scenes_and_a_sweep(opened: Any, tmp_path: Path) -> None:
    page = opened(html_of(tmp_path, scenes=3, sweep=True))
    page.select_option("#sweep-controls select", "poses.mean_error")
    assert page.locator("#sweep-chart svg path.curve").count() == 3
    page.locator("#scenes button", has_text="made-up 2").click()
    assert "made-up 2" in page.locator("#made").inner_text()


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_sticks_out(opened: Any, tmp_path: Path, width: int) -> None:
    page = opened(html_of(tmp_path), width=width, height=800)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_light_and_dark(opened: Any, tmp_path: Path) -> None:
    page = opened(html_of(tmp_path))

    def contrast() -> float:
        colors = page.evaluate(
            "(() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]; })()"
        )
        light = []
        for text in colors:
            channels = np.array([int(v) for v in re.findall(r"\d+", text)[:3]]) / 255
            linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
            light.append(float(linear @ [0.2126, 0.7152, 0.0722]))
        return (max(light) + 0.05) / (min(light) + 0.05)

    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert contrast() > 7  # WCAG 2.2, success criterion 1.4.6
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert contrast() > 7
