"""Fixtures that all tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.scenes import Rendered
from tests.support.servers import server as server

hypothesis.settings.register_profile(
    "recon", deadline=None
)  # machines differ, and the first example loads libraries
hypothesis.settings.load_profile("recon")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that look through a real browser, which want the machine to themselves, and form groups.

    The tests of one file stay together on a worker, so that what they share is made once; those that share the finished
    run stay together whatever their file.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "browser" in fixtures:
            item.add_marker("browser")
        if config.pluginmanager.hasplugin("xdist"):
            group = "finished run" if "finished" in fixtures else str(item.path)
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Rendered scenes by preset, size and coarseness: each is made once, for all tests and all workers."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own
    return Rendered(shared / "rendered-scenes")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real photos and reference outputs; tests that need it skip where it is absent."""
    named = os.environ.get("RECON_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not (root / "datasets").is_dir():
        pytest.skip(f"no data under {root}; set RECON_DATA to the folder that holds datasets/ and reference/")
    return root


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real Chromium without a window; WebGL is drawn by the processor."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on the path (Debian: apt-get install chromium)")
    drawn = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=program, args=["--no-sandbox", *drawn])
        yield found
        found.close()


@pytest.fixture
def open_offline(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a page's text from a file, without a network.

    Fails the test if the console had an error or a warning, if the page raised, or if it asked for anything that is not
    in the file. ``open_offline(text, allow=("...",), **context)``: console texts that hold one of ``allow`` are fine;
    the rest goes to the browser's context (viewport, color_scheme, has_touch ...).
    """
    said: list[str] = []
    contexts: list[Any] = []

    def visit(text: str, allow: tuple[str, ...] = (), script: str = "", **options: Any) -> Any:
        path = tmp_path / f"page {len(contexts)} ü.html"
        path.write_text(text, encoding="utf-8")
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.set_default_timeout(90_000)  # a busy machine is slow, not wrong

        def note(text: str) -> None:
            if not any(part in text for part in allow):
                said.append(text)

        page.on("console", lambda m: note(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: note(str(error)))
        inside = ("file:", "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(inside) else said.append(r.url))
        page.goto(path.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert said == []
