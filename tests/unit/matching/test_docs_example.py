"""The example of docs/matchers.md does what the text says: the code is taken from there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from recon.api import match, match_files
from recon.matching.learned import (
    ALIKED_LIGHTGLUE,
    ALIKED_N16,
    DISK_DEPTH,
    DISK_LIGHTGLUE,
    XFEAT,
    XFEAT_LIGHTERGLUE,
)
from recon.matching.registry import BUILT_IN, create_matcher
from recon.matching.types import Matcher, SparseMatch
from tests.support.matcher_contract import SparseMatcherContract, shifted

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "matchers.md").read_text(encoding="utf-8")


def block(language: str, first_line: str) -> str:
    (found,) = [
        text
        for text in re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)
        if text.startswith(first_line)
    ]
    return found


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The example as an installed package: its module and its entry point lie on the path."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "my_matchers.py").write_text(block("python", "# my_matchers.py"), encoding="utf-8")
    info = folder / "my_matchers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-matchers\nVersion: 1.0\n")
    group, name, target = re.search(
        r'\[project\.entry-points\."(.+)"\]\n(\w+) = "(.+)"', block("toml", "# pyproject.toml")
    ).groups()  # type: ignore[union-attr]
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("my_matchers", None)


class TestExample(SparseMatcherContract):
    matcher = "orb"
    precision = 1.0  # ORB's points lie on the grids of its pyramid
    right = 0.8

    def make(self) -> Matcher:
        return create_matcher("orb")


def test_it_is_short() -> None:
    code = block("python", "# my_matchers.py")
    body = code[code.index("class ") :].strip()
    assert len(body.splitlines()) <= 20


def test_it_matches_files_and_writes_matches_and_a_picture(tmp_path: Path) -> None:
    a, b = shifted(9, -6, 240, 320)
    for name, image in (("a.png", a), ("b.png", b)):
        cv2.imwrite(str(tmp_path / name), image.rgb[:, :, ::-1])
    written = match_files(tmp_path / "a.png", tmp_path / "b.png", tmp_path / "out", matcher="orb")
    with np.load(tmp_path / "out" / "matches.npz") as data:
        step = data["xy_b"] - data["xy_a"]
        assert written.matches == len(step) == len(data["score"])
        assert written.agreeing == data["agrees"].sum() > 200
        right = np.linalg.norm(step - (9, -6), axis=1) < 2
        assert (right[data["agrees"]]).mean() > 0.95
    picture = cv2.imread(str(tmp_path / "out" / "matches.png"))
    assert picture.shape[0] == 240
    assert picture.shape[1] > 640
    assert f"{written.matches}" in written.in_words()
    direct = match(a.rgb, b.rgb, "orb")
    assert isinstance(direct, SparseMatch)
    assert len(direct.score) == written.matches


def test_the_table_names_every_matcher_and_every_file_of_weights() -> None:
    for name in BUILT_IN:
        assert f"`{name}`" in TEXT, name
    for file in (ALIKED_LIGHTGLUE, ALIKED_N16, DISK_DEPTH, DISK_LIGHTGLUE, XFEAT, XFEAT_LIGHTERGLUE):
        assert f"`{file.name}`" in TEXT
        assert file.url in TEXT
        assert f"| {file.size / 1e6:.1f} |" in TEXT
