"""The report in a real browser: every control, on a desk and on a phone, light and dark, without a network."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recon.report.content import Points, ReportContent
from recon.report.page import report_html
from tests.support.report_inputs import NAMES, content, view

DESK = {"viewport": {"width": 900, "height": 700}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 1,
}


@pytest.fixture(scope="module")
def text() -> str:
    return report_html(content())


def ready(page: Any) -> Any:
    page.wait_for_selector("#stage[data-ready]")
    page.locator("#viewer").scroll_into_view_if_needed()
    settled(page)
    return page


def settled(page: Any) -> None:
    """Waits until what was asked for is drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def until(page: Any, true: str) -> None:
    """Waits for an expression (``wait_for_function`` needs eval, which the page's policy forbids)."""
    end = time.monotonic() + 90
    while not page.evaluate(true):
        assert time.monotonic() < end, true
        page.wait_for_timeout(30)


def drawn(page: Any, act: Any) -> np.ndarray:
    """The 3D view's pixels after something that draws it anew."""
    before = page.locator("#stage").get_attribute("data-frames")
    act()
    until(page, f"document.getElementById('stage').dataset.frames !== '{before}'")
    return shot(page)


def shot(page: Any) -> np.ndarray:
    """The 3D view's pixels."""
    settled(page)
    return np.array(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB")).astype(int)


def changed(before: np.ndarray, after: np.ndarray) -> float:
    """Share of the pixels that differ."""
    return float((np.abs(before - after).max(axis=-1) > 8).mean())


def layer(page: Any, name: str) -> Any:
    return page.locator(f'input[data-layer="{name}"]')


def only(page: Any, *names: str) -> None:
    for box in page.locator("input[data-layer]").all():
        box.set_checked(box.get_attribute("data-layer") in names)


def test_every_control_of_the_view_does_something(open_offline: Any, text: str) -> None:
    page = ready(open_offline(text, **DESK))
    begin = shot(page)
    assert changed(begin, np.broadcast_to(begin[10, 10], begin.shape)) > 0.02  # something is there
    for box in page.locator("input[data-layer]").all():
        before = shot(page)
        assert changed(before, drawn(page, box.click)) > 0.0005, box.get_attribute("data-layer")
        assert changed(before, drawn(page, box.click)) < 0.0005
    only(page, "dense")
    before = shot(page)
    bigger = drawn(page, lambda: page.locator("#point-size").fill("6"))
    paper = begin[10, 10]
    assert (np.abs(bigger - paper).max(-1) > 8).mean() > 1.2 * (np.abs(before - paper).max(-1) > 8).mean()
    only(page, "mesh", "cameras")

    box = page.locator("#stage canvas").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 400)
    page.mouse.down()
    turned = drawn(page, lambda: page.mouse.move(box["x"] + 340, box["y"] + 380))
    page.mouse.up()
    assert changed(begin, turned) > 0.02
    zoomed = drawn(page, lambda: page.mouse.wheel(0, 300))
    assert changed(turned, zoomed) > 0.005
    page.locator("#stage canvas").focus()
    keyed = drawn(page, lambda: page.keyboard.press("ArrowLeft"))
    assert changed(zoomed, keyed) > 0.005
    assert changed(keyed, drawn(page, lambda: page.keyboard.press("+"))) > 0.005
    assert changed(begin, drawn(page, lambda: page.click("#reset"))) < 0.0005

    page.click("#full")
    size = page.locator("#stage").bounding_box()
    assert size["width"] > 870
    assert page.locator("#full").get_attribute("aria-pressed") == "true"
    page.click("#full")
    until(page, "!document.getElementById('viewer').classList.contains('full')")
    assert changed(begin, shot(ready(page))) < 0.0005


def test_the_wheel_scrolls_the_page_until_the_picture_is_clicked(open_offline: Any, text: str) -> None:
    page = ready(open_offline(text, **DESK))
    box = page.locator("#stage canvas").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    before = page.evaluate("scrollY")
    page.mouse.wheel(0, 200)
    until(page, f"scrollY > {before}")


def test_looking_through_a_camera_puts_points_on_their_pixels(open_offline: Any) -> None:
    """An independent projection: where K and the pose put three points is where the browser shows them."""
    made = content((412_345.0, 5_312_345.0, 400.0))
    points = np.array([[0.5, 0.3, 0.1], [-0.6, -0.2, 0.0], [0.1, 0.6, -0.3]])
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    offset = np.array([412_345.0, 5_312_345.0, 400.0])
    made.sparse = Points(points + offset, colours)
    page = ready(open_offline(report_html(made), **DESK))
    only(page, "sparse")
    page.locator("#point-size").fill("8")
    for number in (0, 3):
        page.locator(f'button[data-look="{number}"]').click()
        assert page.locator("#looking").inner_text() == NAMES[number]
        page.locator("#opacity").fill("0")
        ready(page)
        pixels = np.array(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
        box = page.locator("#stage canvas").bounding_box()
        width, height = box["width"], box["height"]
        camera = view(number, offset)
        scale = min(width / camera.width, height / camera.height)
        local = (points + offset) @ camera.cam_from_world[:, :3].T + camera.cam_from_world[:, 3]
        image = local @ camera.K.T
        expected = (image[:, :2] / image[:, 2:] + 0.5) * scale
        expected += (np.array([width, height]) - scale * np.array([camera.width, camera.height])) / 2
        expected += [box["x"], box["y"]]
        for channel in range(3):
            wanted = np.eye(3)[channel] * 255
            y, x = np.nonzero(np.abs(pixels - wanted).max(-1) < 60)
            assert len(x) >= 16
            np.testing.assert_allclose([x.mean() + 0.5, y.mean() + 0.5], expected[channel], atol=0.8)
        photo = page.locator("#overlay").bounding_box()
        assert abs(photo["width"] - scale * camera.width) < 1
        assert abs(photo["height"] - scale * camera.height) < 1
        assert abs(photo["x"] + photo["width"] / 2 - box["x"] - width / 2) < 1


def test_cameras_are_walked_through_and_left(open_offline: Any, text: str) -> None:
    page = ready(open_offline(text, **DESK))
    begin = shot(page)
    page.locator('button[data-look="1"]').click()
    assert page.locator("#looking").inner_text() == NAMES[1]
    assert page.locator("#overlay").is_visible()
    half = shot(ready(page))
    page.locator("#opacity").fill("1")
    assert changed(half, shot(page)) > 0.02
    page.click("#next")
    assert page.locator("#looking").inner_text() == NAMES[2]
    page.click("#previous")
    page.click("#previous")
    page.click("#previous")
    assert page.locator("#looking").inner_text() == NAMES[3]
    assert page.locator("#photos figure.chosen").count() == 1
    page.click("#leave")
    assert not page.locator("#look-controls").is_visible()
    assert changed(begin, shot(ready(page))) < 0.0005
    page.locator('button[data-look="0"]').click()
    page.keyboard.press("Escape")
    assert not page.locator("#overlay").is_visible()


def middle_of_a_camera(page: Any) -> tuple[float, float]:
    """Where a pyramid is drawn: the middle of what the layer of the cameras adds."""
    only(page)
    empty = shot(page)
    only(page, "cameras")
    y, x = np.nonzero(np.abs(shot(page) - empty).max(-1) > 30)
    left = x < x.min() + 25  # the leftmost pyramid
    box = page.locator("#stage").bounding_box()
    return box["x"] + float(x[left].mean()), box["y"] + float(y[left].mean())


def test_a_click_on_a_camera_looks_through_it(open_offline: Any, text: str) -> None:
    page = ready(open_offline(text, **DESK))
    x, y = middle_of_a_camera(page)
    page.mouse.move(x, y)
    until(page, "document.querySelector('#stage canvas').title !== ''")
    assert page.locator("#stage canvas").get_attribute("title") in NAMES[:4]
    page.mouse.click(x, y)
    page.wait_for_selector("#stage[data-looking]")
    assert page.locator("#looking").inner_text() in NAMES[:4]
    page.click("#leave")
    page.mouse.click(*[page.locator("#stage").bounding_box()[k] + 8 for k in "xy"])  # beside all cameras
    assert not page.locator("#look-controls").is_visible()


def test_the_graph_lights_up(open_offline: Any, text: str) -> None:
    page = open_offline(text)
    page.locator(".photo").first.click()
    said = page.locator("#graph-said")
    assert said.inner_text() == f"{NAMES[0]}: joined with 3 photos, 600 inliers together."
    assert page.locator(".edge.dim").count() == 3
    page.locator("#least").fill("250")
    assert page.locator(".edge.gone").count() == 3  # 100, 200 and the dropped one
    assert page.locator("#least-value").inner_text() == "250"
    page.click("#graph-all")
    assert page.locator(".edge.gone, .edge.dim").count() == 0
    page.locator(".photo").nth(2).focus()
    page.keyboard.press("Enter")
    assert NAMES[2] in said.inner_text()
    page.keyboard.press("Enter")
    assert said.inner_text() == ""
    page.locator('.edge[data-a="2"][data-b="3"]').dispatch_event("click")
    assert "500 inliers, 90% of the matches, E, 5.0°" in said.inner_text()
    page.locator("#pairs summary").click()
    assert page.locator("#pairs tbody tr").count() == 7
    assert page.locator("#pairs tbody tr").first.is_visible()


def test_pictures_open_and_close(open_offline: Any, text: str) -> None:
    page = open_offline(text)
    buttons = page.locator("button.enlarge")
    assert buttons.count() == 8
    for button in buttons.all():
        assert button.locator("img").evaluate("image => image.complete && image.naturalWidth") == 320
    buttons.first.click()
    assert page.locator("dialog[open] img").is_visible()
    assert NAMES[0] in page.locator("dialog figcaption").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    buttons.last.click()
    page.locator("dialog button").click()
    assert page.locator("dialog[open]").count() == 0


def test_what_was_said_is_read_as_it_was_said(open_offline: Any, text: str) -> None:
    page = open_offline(text)
    assert page.title() == "Reconstruction of <b>harm</b>"
    names = [one.inner_text() for one in page.locator("#photos figcaption b").all()]
    assert names == list(NAMES)
    assert "too few matches <i>here</i>" in page.locator("#left-out").inner_text()
    assert "<script>alert(3)</script> was said" in page.locator("#short .warning").inner_text()
    page.locator("#repeat summary").click()
    assert page.locator("#repeat details pre").inner_text() == 'name = "</pre><script>alert(4)</script>"'
    assert "failed" in page.locator("#cost").inner_text()
    page.locator("#left-out summary").last.click()
    assert page.locator("#left-out details").last.get_attribute("open") is not None
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
        link.click()


def test_the_command_is_copied(open_offline: Any, text: str) -> None:
    page = open_offline(text, permissions=["clipboard-read", "clipboard-write"])
    page.click("#copy")
    until(page, "document.getElementById('copy').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == "recon reconstruct 'a b' --out AGAIN"


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_sticks_out(open_offline: Any, text: str, width: int) -> None:
    page = ready(open_offline(text, viewport={"width": width, "height": 800}))
    for summary in page.locator("summary").all():
        summary.click()
    page.locator('button[data-look="1"]').click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_fingers_turn_and_choose(open_offline: Any, text: str) -> None:
    page = ready(open_offline(text, **PHONE))
    begin = shot(page)
    box = page.locator("#stage canvas").bounding_box()
    devtools = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        at = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(points)]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch("touchStart", (x, y))
    for step in range(1, 5):
        touch("touchMove", (x + 5 * step, y + 2 * step))
    turned = drawn(page, lambda: touch("touchMove", (x + 25, y + 10)))
    touch("touchEnd")
    assert changed(begin, turned) > 0.01
    touch("touchStart", (x - 30, y), (x + 30, y))
    for step in range(1, 5):
        touch("touchMove", (x - 30 - 15 * step, y), (x + 30 + 15 * step, y))
    zoomed = drawn(page, lambda: touch("touchMove", (x - 95, y), (x + 95, y)))
    touch("touchEnd")
    paper = begin[10, 10]
    assert (np.abs(zoomed - paper).max(-1) > 8).mean() > 1.5 * (np.abs(turned - paper).max(-1) > 8).mean()
    assert changed(begin, drawn(page, lambda: page.tap("#reset"))) < 0.001
    cx, cy = middle_of_a_camera(page)
    page.touchscreen.tap(cx, cy)
    page.wait_for_selector("#stage[data-looking]")
    assert page.locator("#looking").inner_text() in NAMES[:4]
    page.tap("#leave")
    page.tap("#full")
    assert page.locator("#stage").bounding_box()["height"] > 450
    page.tap("#full")


def test_light_and_dark(open_offline: Any, text: str) -> None:
    def contrast(page: Any) -> float:
        colours = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        light = []
        for one in colours:
            channels = np.array([int(v) for v in re.findall(r"\d+", one)[:3]]) / 255
            linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
            light.append(float(linear @ [0.2126, 0.7152, 0.0722]))
        return (max(light) + 0.05) / (min(light) + 0.05)

    page = ready(open_offline(text, color_scheme="dark", **DESK))
    dark = shot(page)
    assert dark[10, 10].max() < 80
    assert contrast(page) > 7  # WCAG 2.2, success criterion 1.4.6
    page.click("#theme")
    assert shot(ready(page))[10, 10].min() > 200
    assert contrast(page) > 7
    page.click("#theme")
    assert shot(ready(page))[10, 10].max() < 80
    page.emulate_media(color_scheme="light")  # the reader's own choice holds
    assert shot(ready(page))[10, 10].max() < 80


def test_without_webgl_the_still_picture_stays(open_offline: Any, text: str) -> None:
    script = "HTMLCanvasElement.prototype.getContext = () => null;"
    page = open_offline(text, script=script, allow=("WebGL",))
    page.wait_for_selector("#stage-note:not([hidden])")
    assert "WebGL" in page.locator("#stage-note").inner_text()
    assert page.locator("#still").is_visible()
    assert not page.locator("#view-controls").is_visible()


def test_without_scripts_all_but_the_view_can_be_read(open_offline: Any, text: str) -> None:
    page = open_offline(text, java_script_enabled=False)
    assert page.locator("#still").is_visible()
    assert page.locator("#photos img").count() == 5
    assert page.locator("#histograms svg").count() == 2
    assert page.locator("#graph").is_visible()
    assert not page.locator("#copy").is_visible()


@pytest.mark.parametrize("kind", ["cameras only", "points only", "one photo", "vertex colours", "nothing"])
def test_runs_that_made_less(open_offline: Any, kind: str) -> None:
    made = content(texture=False)
    if kind == "cameras only":
        made.sparse = made.dense = made.surface = None
    elif kind == "points only":
        made.photos = [replace(one, view=None) for one in made.photos]
        made.surface = None
    elif kind == "one photo":
        made = ReportContent("One", photos=made.photos[:1], photo_names=NAMES[:1], sparse=made.sparse)
    elif kind == "nothing":
        made = ReportContent("Nothing", failure="it failed")
    page = open_offline(report_html(made), **DESK)
    if kind == "nothing":
        assert page.locator("#viewer").count() == 0
        return
    pixels = shot(ready(page))
    assert changed(pixels, np.broadcast_to(pixels[10, 10], pixels.shape)) > 0.001


def test_markup_that_got_in_runs_nothing(open_offline: Any, text: str) -> None:
    """Names are escaped (test_report.py); were one not, the page's policy would still stop it."""
    page = ready(open_offline(text, allow=("Content Security Policy",), **DESK))
    for harm in (
        "<img src=data:, onerror=window.harmed=1>",
        "<a id=harm href='javascript:window.harmed=1'>.</a>",
    ):
        page.evaluate("(harm) => document.body.insertAdjacentHTML('afterbegin', harm)", harm)
    page.locator("#harm").click()
    page.evaluate(
        "document.head.append(Object.assign(document.createElement('script'), { text: 'harmed = 1' }))"
    )
    page.wait_for_timeout(300)
    assert page.evaluate("window.harmed") is None


def test_on_paper_no_control_is_left_and_nothing_hangs_over(text: str, open_offline: Any) -> None:
    page = ready(open_offline(text, viewport={"width": 700, "height": 900}))
    page.emulate_media(media="print")
    shown = (
        "[...document.querySelectorAll('button:not(.enlarge), nav, .controls')].filter((e) => e.offsetParent)"
    )
    assert page.evaluate(f"{shown}.length") == 0
    over = "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
    assert page.evaluate(f"{over}.length") == 0
    picture = "!document.querySelector('#still') || !document.querySelector('#stage canvas').offsetParent"
    assert page.evaluate(picture)  # not the still and an empty canvas above it
    assert page.pdf(format="A4").startswith(b"%PDF")
