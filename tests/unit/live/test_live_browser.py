"""The live viewer in a real browser: every control is used, and any error of its console fails the test."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from recon.render.frusta import photo_corners
from tests.support import live_scene

pytest.importorskip("viser", reason="viser is not installed")

from recon.io.pictures import encode_picture
from recon.live.linked import link
from recon.live.serving import PairPage, free_port
from recon.live.truth import load_truth
from recon.live.viewer import LiveViewer
from recon.render.scene_files import open_view_scene
from recon.surface.texture.files import textured_glb
from recon.surface.texture.types import TexturedMesh
from recon.synthetic.files import write_ply

SIZE = {"width": 820, "height": 520}

PATIENCE = 120.0
"""Seconds to wait for what takes one or two on an idle machine."""


def wait_for(true: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = true()
        if isinstance(found, np.ndarray) or found:
            return found
        time.sleep(0.3)  # screenshots in a row leave a slow browser no time
    raise AssertionError(f"did not happen: {what}")


class Session:
    """A viewer and a browser's page that shows it."""

    def __init__(self, viewer: LiveViewer, page: Any) -> None:
        self.viewer, self.page = viewer, page

    @property
    def camera(self) -> Any:
        return next(iter(self.viewer.clients.values())).handle.camera

    def picture(self) -> np.ndarray:
        """What is drawn."""
        data = self.page.screenshot(clip=self.area)
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)

    def canvas(self) -> np.ndarray:
        """What is drawn, when it has not changed for a second: a slow browser begins to change late."""
        before, since = self.picture(), time.monotonic()
        for _ in range(80):
            time.sleep(0.2)
            now = self.picture()
            if np.abs(now - before).mean() >= 0.05:
                since = time.monotonic()
            elif time.monotonic() - since > 1.0:
                return now
            before = now
        raise AssertionError("the picture does not come to rest")

    def settle(self) -> None:
        """Wait until the viewer takes what the camera does for what a person does."""
        client = next(iter(self.viewer.clients.values()))
        since = [self.viewer.linked_at, client.placed_at]
        wait_for(
            lambda: (client.placed is None or client.arrived) and time.monotonic() - max(since) > 1.0,
            "the camera is where it was put",
        )

    @property
    def area(self) -> dict[str, float]:
        """Of the canvas, left of the panel, in pixels of the page: a slow browser draws a smaller picture."""
        width, height = self.page.evaluate(
            "[document.querySelector('canvas').clientWidth, document.querySelector('canvas').clientHeight]"
        )
        return {"x": 0, "y": 0, "width": float(width), "height": float(height)}

    def box(self, name: str) -> Any:
        return self.page.get_by_role("checkbox", name=name, exact=True)

    def only(self, *layers: str) -> None:
        for name in ("cameras", "photos", "sparse points", "dense points", "mesh"):
            self.box(name).set_checked(name in layers)

    def choose(self, label: str, option: str) -> None:
        from playwright.sync_api import TimeoutError as TookTooLong

        field = self.page.get_by_label(label, exact=True)
        wanted = self.page.get_by_role("option", name=option, exact=True)

        def chosen() -> bool:
            if field.input_value() == option:
                return True
            field.click()
            with contextlib.suppress(TookTooLong):  # the list closes when the panel moves below it
                wanted.click(timeout=10_000)
            return bool(field.input_value() == option)

        wait_for(chosen, f"{label}: {option}")

    def slide(self, label: str, value: str) -> None:
        """Types into the number beside a slider."""
        row = self.page.locator(f"label:text-is('{label}')").locator("xpath=ancestor::*[.//input][1]")
        field = row.locator("input").last
        field.fill(value)
        field.press("Enter")

    def pixel(self, point: np.ndarray) -> tuple[float, float]:
        """Where a point of the scene is drawn."""
        camera = self.camera
        z = camera.look_at - camera.position
        z = z / np.linalg.norm(z)
        x = np.cross(z, camera.up_direction)
        x /= np.linalg.norm(x)
        y = np.cross(z, x)
        local = np.stack([x, y, z]) @ (np.asarray(point) - camera.position)
        area = self.area
        focal = area["height"] / 2 / np.tan(camera.fov / 2)
        return (
            float(focal * local[0] / local[2] + area["width"] / 2),
            float(focal * local[1] / local[2] + area["height"] / 2),
        )

    def click(self, point: np.ndarray) -> None:
        self.page.mouse.click(*self.pixel(point))

    def text(self, pattern: str) -> str:
        return str(wait_for(lambda: re.search(pattern, self.page.inner_text("body")), pattern).group(0))


def on_wall(x: float, z: float) -> np.ndarray:
    return np.array([x, float(live_scene.wall_y(np.array(x), np.array(z))), z])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("läufe")
    live_scene.write_run(root / "lauf ä 塔")
    write_ply(root / "wahrheit.ply", live_scene.wall(150, shift=-0.05))
    return root


@pytest.fixture
def watched(browser: Any) -> Iterator[Callable[[str], Any]]:
    """Opens a page; the test fails if its console has an error or it asks another machine for anything."""
    said: list[str] = []
    contexts = []

    def visit(url: str) -> Any:
        context = browser.new_context(viewport=SIZE)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        inside = ("http://127.0.0.1", "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(inside) else said.append(r.url))
        page.goto(url)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert said == []


def started(viewer: LiveViewer, visit: Callable[[str], Any]) -> Session:
    session = Session(viewer, visit(f"http://127.0.0.1:{viewer.port}/"))
    wait_for(lambda: viewer.clients, "the browser connects")
    # The notice that there is no graphics card covers a part of the scene.
    session.page.add_style_tag(content=".mantine-Notification-root { display: none }")
    return session


@pytest.fixture
def session(folder: Path, watched: Callable[[str], Any]) -> Iterator[Session]:
    scene = open_view_scene(folder / "lauf ä 塔")
    truth = load_truth(folder / "wahrheit.ply", scene)
    viewer = LiveViewer(scene, "127.0.0.1", free_port("127.0.0.1", 18_600), truth)
    try:
        yield started(viewer, watched)
    finally:
        viewer.stop()


def test_layers_and_colours(session: Session) -> None:
    session.text("5 cameras, 5 photos, 60 sparse points, 20\u202f000 dense points")
    pictures = {}
    for layer in ("cameras", "photos", "sparse points", "dense points", "mesh"):
        session.only(layer)
        if layer == "dense points":
            session.text("drawn now: 20\u202f000 of 20\u202f000")
        pictures[layer] = session.canvas()
    session.only()
    wait_for(lambda: session.picture().max() < 60, "dark ground alone")
    nothing = session.canvas()
    for layer, picture in pictures.items():
        drawn = np.abs(picture - nothing).max(axis=-1) > 20
        assert drawn.mean() > (0.15 if layer in ("dense points", "mesh") else 0.001), layer
    both = [pictures["dense points"], pictures["mesh"]]
    inside = np.all([np.abs(one - nothing).max(axis=-1) > 20 for one in both], axis=0)
    assert np.abs(both[0] - both[1])[inside].mean() < 20  # the points have the texture's colours
    modes = {
        "height": r"-?\d",
        "normal": "red, green, blue",
        "confidence": r"0\s+1",
        "number of views": r"2\s+5",
        "error against the truth": r"0\s+0.0[4-9]",
        "shape": "colour by",
        "photo": "colour by",
    }
    for layer, some in (("dense points", list(modes)), ("mesh", ["height", "shape", "photo"])):
        session.only(layer)
        last = session.canvas()
        for mode in some:
            session.choose("colour by", mode)
            session.text(modes[mode])
            last = wait_for(lambda last=last: _changed(session, last), f"{layer} by {mode}")
    wait_for(lambda: np.abs(session.picture() - pictures["mesh"]).mean() < 1.0, "back to photo")


def _changed(session: Session, last: np.ndarray) -> np.ndarray | None:
    now = session.picture()
    return now if np.abs(now - last).mean() > 0.5 else None


def _covered(picture: np.ndarray) -> int:
    """Pixels that are lighter than the background."""
    return int((picture.max(axis=-1) > 60).sum())


def _at_rest(session: Session) -> bool:
    """The camera does not move for a second."""
    before = session.camera.position.copy()
    time.sleep(1.0)
    return bool(np.array_equal(session.camera.position, before))


def test_point_size_and_detail(session: Session) -> None:
    everything = _covered(session.canvas())
    session.only("dense points")
    session.slide("point size", "0.2")
    wait_for(lambda: _covered(session.picture()) < 0.9 * everything, "points alone")
    small = session.canvas()
    session.slide("point size", "3")
    wait_for(lambda: _covered(session.picture()) > 1.1 * _covered(small), "larger points")
    session.page.get_by_text("View", exact=True).click()
    session.slide("million points", "0.5")
    wait_for(lambda: session.viewer.style.budget == 500_000, "another budget")
    session.choose("up", "+y")
    wait_for(lambda: abs(session.camera.up_direction[1]) > 0.9, "y is up")
    later = session.page.context.new_page()
    later.goto(session.page.url)
    wait_for(lambda: len(session.viewer.clients) == 2, "a browser that comes later")
    newest = list(session.viewer.clients.values())[-1].handle.camera
    wait_for(lambda: abs(newest.up_direction[1]) > 0.9, "y is up there too")
    later.close()
    wait_for(lambda: len(session.viewer.clients) == 1, "it has gone")
    session.choose("up", "as it is")
    wait_for(lambda: abs(session.camera.up_direction[2]) > 0.9, "z is up again")
    start = session.camera.position.copy()
    session.page.mouse.move(300, 300)
    session.page.mouse.wheel(0, -400)
    wait_for(lambda: np.linalg.norm(session.camera.position - start) > 0.1, "closer")
    # The wheel that runs out would move a view that is reset meanwhile.
    wait_for(lambda: _at_rest(session), "the wheel has run out")
    session.page.get_by_role("button", name="reset the view").click()
    wait_for(lambda: np.linalg.norm(session.camera.position - start) < 0.01, "back")


def test_looking_through_a_photo(session: Session) -> None:
    session.only("mesh", "photos", "cameras")
    session.canvas()
    start = session.camera.position.copy()
    name = live_scene.NAMES[2]
    session.choose("photo", name)
    session.text(f"Through {name}")
    view = live_scene.views()[2]
    wait_for(
        lambda: np.allclose(session.camera.position, view.center, atol=1e-3), "the camera is in its place"
    )
    session.slide("photo opacity", "1")
    everywhere = (slice(None), slice(None))
    wait_for(lambda: _difference(session, 2, everywhere) < 6, "the photo is shown where it belongs")
    session.slide("photo opacity", "0")
    wait_for(lambda: session.viewer.panel.opacity == 0, "the photo is gone")
    left = (slice(60, -60), slice(60, 200))  # of the board
    wait_for(lambda: _difference(session, 2, left) < 12, "the model looks like the photo from there")
    assert _difference(session, 2, left, shift=12) > 2 * _difference(session, 2, left)
    session.page.get_by_text("next", exact=True).click()
    session.text(f"Through {live_scene.NAMES[3]}")
    session.page.get_by_text("previous", exact=True).click()
    session.page.get_by_text("previous", exact=True).click()
    session.text(f"Through {live_scene.NAMES[1]}")
    session.page.get_by_role("button", name="leave the photo").click()
    wait_for(lambda: session.viewer.photo is None, "the photo is left")
    wait_for(lambda: np.allclose(session.camera.position, start, atol=1e-2), "the first view is back")
    session.canvas()
    row = 3
    view = live_scene.views()[row]
    corner = view.center + session.viewer.cameras.depth * view.cam_from_world[2, :3]
    session.click(corner)  # the middle of the photo on its frustum
    session.text(f"Through {live_scene.NAMES[row]}")
    wait_for(
        lambda: np.allclose(session.camera.position, view.center, atol=1e-3), "through the clicked camera"
    )
    assert "Nothing is there" not in session.page.inner_text("body")
    session.page.mouse.move(200, 400)
    session.settle()
    session.page.mouse.down()
    session.page.mouse.move(280, 370, steps=8)
    session.page.mouse.up()
    wait_for(lambda: session.viewer.photo is None, "turning away leaves the photo")
    session.only("cameras")  # without photos the pyramids are filled, to be clicked anywhere
    session.viewer.reset_view()
    wait_for(lambda: np.allclose(session.camera.position, start, atol=1e-2), "back where it began")
    session.canvas()
    view = live_scene.views()[1]
    session.click(view.center + 0.7 * session.viewer.cameras.depth * view.cam_from_world[2, :3])
    session.text(f"Through {live_scene.NAMES[1]}")


def _difference(session: Session, row: int, part: tuple[slice, slice], shift: int = 0) -> float:
    """Mean difference of the drawn picture from a photo, where the photo belongs."""
    view = live_scene.views()[row]
    corners = (photo_corners(view, 1.0) - view.cam_from_world[:, 3]) @ view.cam_from_world[:, :3]
    places = np.array([session.pixel(corner) for corner in corners], np.float32)
    flat = np.array([[-0.5, -0.5], [319.5, -0.5], [319.5, 239.5], [-0.5, 239.5]], np.float32)
    matrix = cv2.getPerspectiveTransform(places - 0.5, flat)
    shown = cv2.warpPerspective(session.picture(), matrix, (320, 240), flags=cv2.INTER_LINEAR)
    photo = session.viewer.scene.photos[row].pixels().astype(np.float32)
    return float(np.abs(shown - np.roll(photo, shift, axis=1))[part].mean())


def test_clicked_points_and_measuring(session: Session) -> None:
    for layer, kind in (("sparse points", "sparse point"), ("dense points", "dense point"), ("mesh", "mesh")):
        session.only(layer)
        session.canvas()
        sparse = session.viewer.scene.sparse
        assert sparse is not None
        target = sparse.xyz[5] if layer == "sparse points" else on_wall(-0.9, 0.4)
        session.click(target)
        said = session.text(kind + r" at -?[\d.]+, -?[\d.]+, -?[\d.]+")
        found = np.array([float(word) for word in re.findall(r"-?\d+\.\d+", said)])
        assert np.linalg.norm(found - target) < 0.06, said
        session.text(r"(made|seen) by \d photos")
        for view in live_scene.views()[:2]:
            local = view.cam_from_world[:, :3] @ found + view.cam_from_world[:, 3]
            x, y = view.K[:2, :2] @ local[:2] / local[2] + view.K[:2, 2]
            listed = re.search(
                re.escape(view.name) + r"\s+(-?\d+\.\d)\s+(-?\d+\.\d)", session.page.inner_text("body")
            )
            assert listed is not None
            assert np.hypot(float(listed.group(1)) - x, float(listed.group(2)) - y) < 0.3
    assert session.page.locator("img").count() >= 1  # pieces of the photos
    session.page.mouse.click(8, 512)
    session.text("Nothing is there")
    session.box("measure").check()
    session.text("Lengths are in units of the model")
    a, b = on_wall(-1.2, -0.6), on_wall(0.0, 0.6)
    session.click(a)
    session.text("First point taken")
    session.click(b)
    said = session.text(r"[\d.]+ units ± [\d.]+ units \(x")
    assert float(said.split()[0]) == pytest.approx(np.linalg.norm(b - a), rel=0.02)
    session.page.get_by_role("button", name="clear the measurement").click()
    session.text("Click two points")
    session.box("measure").uncheck()


def test_clipping(session: Session) -> None:
    session.only("dense points", "mesh", "sparse points")
    whole = session.canvas()
    session.page.get_by_text("Clipping box", exact=True).click()
    session.box("clip").check()
    thumb = session.page.locator(".multi-slider-thumb").first  # the left end of "across"
    thumb.scroll_into_view_if_needed()
    wait_for(lambda: "disabled" not in str(thumb.get_attribute("class")), "the sliders can be moved")
    track = session.page.locator(".multi-slider-track").first.bounding_box()
    session.page.mouse.move(track["x"] + 1, track["y"] + track["height"] / 2)
    session.page.mouse.down()
    session.page.mouse.move(track["x"] + track["width"] / 2, track["y"] + track["height"] / 2, steps=6)
    session.page.mouse.up()
    wait_for(
        lambda: session.viewer.style.clip is not None and _low(session) > 0.4, "the box follows the slider"
    )
    wait_for(lambda: _changed(session, whole), "less is drawn")
    half = session.canvas()
    left, right = half[:, : half.shape[1] // 3], half[:, half.shape[1] // 2 :]
    assert (left.max(axis=-1) > 70).mean() < 0.02 < (right.max(axis=-1) > 70).mean()
    session.click(on_wall(-1.5, 0.0))  # what is cut away cannot be clicked
    session.text("Nothing is there")
    session.box("clip").uncheck()
    wait_for(lambda: np.abs(session.picture() - whole).mean() < 1.0, "all is back")


def _low(session: Session) -> float:
    clip, whole = session.viewer.style.clip, session.viewer.whole
    return 0.0 if clip is None else float(((clip.low - whole.low) / (whole.high - whole.low))[0])


def test_two_runs_side_by_side(folder: Path, watched: Callable[[str], Any]) -> None:
    from dataclasses import replace

    a = open_view_scene(folder / "lauf ä 塔")
    R = cv2.Rodrigues(np.array([0.3, -0.5, 0.8]))[0]
    assert a.sparse is not None
    other = a.sparse.moved(2.0, R, np.array([3.0, 1.0, -2.0]))
    photos = tuple(
        replace(photo, view=replace(photo.view, cam_from_world=view.cam_from_world))
        for photo, view in zip(a.photos, other.views, strict=True)
    )
    b = replace(a, name="zweiter", photos=photos, sparse=other, dense=None, mesh=None, up=R @ a.up)
    first = LiveViewer(a, "127.0.0.1", free_port("127.0.0.1", 18_650))
    second = LiveViewer(b, "127.0.0.1", free_port("127.0.0.1", first.port + 1))
    assert link(first, second)
    port = free_port("127.0.0.1", second.port + 1)
    pair = PairPage("127.0.0.1", port, ("lauf ä", "zweiter"), (first.port, second.port))
    try:
        page = watched(f"http://127.0.0.1:{port}/")
        wait_for(lambda: first.clients and second.clients, "both browsers connect")
        assert page.locator("h1").all_inner_texts() == ["lauf ä", "zweiter"]
        left, right = Session(first, page), Session(second, page)

        def together() -> bool:
            return np.allclose(
                2.0 * R @ left.camera.position + [3, 1, -2], right.camera.position, atol=0.02
            ) and np.allclose(left.camera.fov, right.camera.fov)

        wait_for(together, "they begin alike")
        before = left.camera.position.copy()
        left.settle()
        page.mouse.move(60, 300)
        page.mouse.down()
        page.mouse.move(100, 330, steps=6)
        page.mouse.up()
        wait_for(lambda: np.linalg.norm(left.camera.position - before) > 0.1, "the left camera turns")
        wait_for(together, "the right camera follows")
        page.frame_locator("iframe").first.get_by_text("next", exact=True).click()
        wait_for(lambda: second.photo == first.photo == 1, "both look through the same photo")
        wait_for(together, "both are in its place")
    finally:
        pair.stop()
        first.stop()
        second.stop()


def test_a_textured_glb_stands_upright_in_its_colours(tmp_path: Path, watched: Callable[[str], Any]) -> None:
    """A GLB as runs write it: as the viewer shows the file, and as three.js's own GLTFLoader reads its bytes."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float64)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    texture = np.zeros((64, 64, 3), np.uint8)
    wanted = {(0, 0): (200, 40, 40), (0, 1): (40, 200, 40), (1, 0): (40, 40, 200), (1, 1): (200, 200, 40)}
    for (row, column), rgb in wanted.items():
        texture[32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = rgb
    none = np.zeros(2, np.int32)
    mesh = TexturedMesh(corners, faces, (corners[faces][..., :2] + 1) / 2, texture, none, none)
    path = tmp_path / "tafel ü.glb"
    path.write_bytes(textured_glb(mesh, [encode_picture(texture, "png")], "png"))
    viewer = LiveViewer(open_view_scene(path), "127.0.0.1", free_port("127.0.0.1", 18_750))
    try:
        session = started(viewer, watched)

        def shown() -> dict[tuple[int, int], tuple[bool, ...]]:
            picture = session.picture()
            found = {}
            for row, column in wanted:
                x, y = session.pixel(np.array([column - 0.5, 0.5 - row, 0.0]))
                found[row, column] = tuple((picture[round(y), round(x)] > 120).tolist())
            return found

        bright = {place: tuple(value > 120 for value in rgb) for place, rgb in wanted.items()}
        wait_for(lambda: shown() == bright, "the viewer shows the quarters where they are")
        x, y = session.pixel(np.array([-0.5, 0.5, 0.0]))
        assert np.abs(session.canvas()[round(y), round(x)] - wanted[0, 0]).max() < 12
        session.box("mesh").set_checked(False)
        wait_for(lambda: session.picture().max() < 60, "nothing is shown")
        viewer.server.scene.add_glb("/as it is", path.read_bytes())
        wait_for(lambda: shown() == bright, "GLTFLoader shows the quarters where they are")
    finally:
        viewer.stop()


def test_command(folder: Path, browser: Any, tmp_path: Path) -> None:
    """From the command line: port in use, no browser, Ctrl-C; a COLMAP model whose photos are gone is shown."""
    model = folder / "lauf ä 塔" / "sparse" / "0"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "recon.cli", "view", str(model), "--port", str(port)]
        environment = {key: value for key, value in os.environ.items() if "DISPLAY" not in key}
        process = subprocess.Popen(
            command,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            # A test run that was started in the background inherits SIGINT as ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            said = ""
            assert process.stdout is not None
            while "no browser" not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", said)
            assert found is not None
            assert int(found.group(1)) != port
            assert f"port {port} is in use" in said
            assert "5 photos are not there" in said
            page = browser.new_page(viewport=SIZE)
            page.set_default_timeout(1000 * PATIENCE)
            page.goto(found.group(0))
            page.get_by_text("5 cameras, 60 sparse points").wait_for()
            page.close()
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=20)
            assert process.returncode == 0, rest
            assert "Traceback" not in said + rest
        finally:
            process.kill()
