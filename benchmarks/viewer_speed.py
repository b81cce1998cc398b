"""The live viewer with large clouds: how soon something is to be seen, and how quickly frames follow.

    python benchmarks/viewer_speed.py                       # clouds of 10 thousand, 1 and 10 million points
    python benchmarks/viewer_speed.py --millions 10 --repeats 3
    python benchmarks/viewer_speed.py --show OUT            # a run, or any file that 'recon view' takes

``recon view`` is started as a user starts it and opened in a headless Chromium that runs already. "Listens", "seen" and
"all" are seconds from the start of the command: until it answers, until points are drawn on the page (the first picture
that is of use), and until all points are read and those that the view asks for are sent. The smallest cloud shows
what the page itself takes, whatever is in it. Frame times are the distances of
``requestAnimationFrame`` while the mouse turns the scene for some seconds, and at rest afterwards. Chromium draws
without a graphics card here (SwiftShader): the processor does the card's work, beside the viewer's own. CPU seconds, of
the viewer and of the browser until the first picture, do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from _common import machine, table

from recon.core.mesh import FusedCloud
from recon.io.surfaces import write_points_ply

PORT = 18_800
SIZE = (1280, 800)
_RECORD = """() => {
  window.frames_ = [];
  let last = performance.now();
  const next = (now) => { window.frames_.push(now - last); last = now; window.request_ = requestAnimationFrame(next); };
  window.request_ = requestAnimationFrame(next);
}"""
_RECORDED = "() => { cancelAnimationFrame(window.request_); return window.frames_.slice(1); }"


def wavy_cloud(count: int) -> FusedCloud:
    """Points of a wavy sheet with all that a fused cloud has."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-3, 3, count).astype(np.float32), rng.uniform(-2, 2, count).astype(np.float32)
    normals = np.stack(
        [-0.6 * np.cos(2 * x) * np.cos(3 * y), 0.9 * np.sin(2 * x) * np.sin(3 * y), np.ones_like(x)], axis=1
    )
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    rgb = np.stack(
        [127 + 100 * np.sin(5 * x), 127 + 100 * np.sin(7 * y), 127 + 100 * np.cos(3 * x + 2 * y)], axis=1
    )
    return FusedCloud(
        np.stack([x, y, 0.3 * np.sin(2 * x) * np.cos(3 * y)], axis=1),
        normals,
        rgb.astype(np.uint8),
        rng.integers(2, 9, count).astype(np.uint16),
        np.zeros(count, np.int32),
        rng.random(count, np.float32),
    )


def measure(path: Path, browser: Any, seconds: float) -> list[Any]:
    """One row of the table: how soon it listens and is seen, then points and frames of moving and resting."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "recon.cli", "view", str(path), "--no-browser", "--port", str(PORT)]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    page = None
    try:
        assert process.stdout is not None
        said, url = "", None
        while url is None:
            line = process.stdout.readline()
            if not line:
                sys.exit(said)
            said += line
            url = re.search(r"http://\S+/", line)
        listens = time.perf_counter() - start
        viewer = psutil.Process(process.pid).cpu_times()
        work = _browser_work()
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        page.set_default_timeout(300_000)
        page.goto(url.group(0))
        while not _seen(page):
            page.wait_for_timeout(100)
        seen = time.perf_counter() - start
        work = _browser_work() - work
        resting, settled = _settled(page)
        settled -= start
        page.evaluate(_RECORD)
        before = _browser_work()
        page.mouse.move(500, 400)
        page.mouse.down()
        end = time.perf_counter() + seconds
        step = 0
        while time.perf_counter() < end:
            step += 1
            page.mouse.move(500 + 250 * np.sin(step / 12), 400 + 80 * np.sin(step / 7))
            page.wait_for_timeout(20)
        moving = _drawn(page)
        page.mouse.up()
        frames = np.array(page.evaluate(_RECORDED))
        work_per_frame = 1000 * (_browser_work() - before) / max(len(frames), 1)
        frames = frames[len(frames) // 4 :]  # it takes some frames to see how fast the browser is
        after, _ = _settled(page)
        page.evaluate(_RECORD)
        page.wait_for_timeout(1500)
        still = np.array(page.evaluate(_RECORDED))
        return [
            listens,
            viewer.user + viewer.system,
            seen,
            work,
            settled,
            f"{resting:,}",
            f"{moving:,}",
            _spread(frames),
            work_per_frame,
            f"{after:,}",
            _spread(still),
        ]
    finally:
        if page is not None:
            page.close()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def _browser_work() -> float:
    """CPU seconds of the browser's processes so far."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "chrom" in process.name():
                times = process.cpu_times()
                total += times.user + times.system
    return total


def _seen(page: Any) -> bool:
    """Whether the drawn picture is more than dark ground."""
    url = page.evaluate(
        """() => [...document.querySelectorAll("canvas")].sort((a, b) => b.width - a.width)[0]?.toDataURL() ?? "" """
    )
    data = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    return picture is not None and float((picture.max(axis=-1) > 80).mean()) > 0.05


def _drawn(page: Any) -> int:
    """Dense points that the panel says are drawn."""
    found = re.search(r"drawn now: ([\d\u202f]+) of", page.inner_text("body"))
    return int(found.group(1).replace("\u202f", "")) if found else 0


def _settled(page: Any) -> tuple[int, float]:
    """Points drawn when all are read and their number has not changed for two seconds, and since when."""
    last, since = -1, time.perf_counter()
    end = since + 120
    while time.perf_counter() < end:
        now = _drawn(page)
        if now != last or "being read" in page.inner_text("body"):
            last, since = now, time.perf_counter()
        if now and time.perf_counter() - since > 2:
            break
        page.wait_for_timeout(100)
    return last, since


def _spread(frames: np.ndarray) -> str:
    """Median, 90% and longest frame."""
    if not len(frames):
        return "–"
    return f"{np.median(frames):.0f} / {np.percentile(frames, 90):.0f} / {frames.max():.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--millions", type=float, nargs="+", default=[0.01, 1.0, 10.0], help="sizes of the clouds"
    )
    parser.add_argument("--show", type=Path, help="this instead of made-up clouds")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="of turning")
    given = parser.parse_args()
    program = next((one for name in ("chromium", "google-chrome") if (one := shutil.which(name))), None)
    if program is None:
        sys.exit("no Chromium on the path")
    from playwright.sync_api import sync_playwright

    rows = []
    drawn = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    print(machine())
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", *drawn])
        paths = [given.show] if given.show else []
        for millions in [] if given.show else given.millions:
            path = Path(name) / f"{millions:g} million.ply"
            write_points_ply(path, wavy_cloud(round(millions * 1e6)))
            paths.append(path)
        for path in paths:
            for _ in range(given.repeats):
                rows.append([path.name, *measure(path, browser, given.seconds)])
        browser.close()
    print(machine())
    heads = [
        "what",
        "listens, s",
        "its CPU s",
        "seen, s",
        "browser's CPU s",
        "all, s",
        "points at first",
        "points moving",
        "frames moving, ms",
    ]
    print(table(rows, [*heads, "CPU ms per frame", "points after", "frames at rest, ms"]))
    print("frames: median / 90% / longest")


if __name__ == "__main__":
    main()
