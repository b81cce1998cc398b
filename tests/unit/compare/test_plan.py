"""What a user writes becomes contenders and scenes, or a message that says what to write instead."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recon.compare.plan import contenders, find_scene
from recon.errors import ReconError, UsageError


def test_matchers_recipes_and_labels() -> None:
    found = contenders(["dis", "siftflow-geometric", "wide=siftflow"], ["match.max_size=200"])
    assert [(c.label, c.recipe) for c in found] == [
        ("dis", "siftflow"),
        ("siftflow-geometric", "siftflow-geometric"),
        ("wide", "siftflow"),
    ]
    assert found[0].overrides == ("match.matcher=dis", "match.max_size=200")
    assert found[1].overrides == ("match.max_size=200",)


def test_a_setting_for_one_contender() -> None:
    found = contenders(["a=siftflow", "b=siftflow"], ["b:match.window=7", "depth.max_size=300"])
    assert found[0].overrides == ("match.matcher=siftflow", "depth.max_size=300")
    assert found[1].overrides == ("match.matcher=siftflow", "depth.max_size=300", "match.window=7")


def test_a_recipe_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "siftflow"\n')
    (found,) = contenders([str(path)])
    assert (found.label, found.recipe) == ("mine", str(path))


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["siftflo"], [], "did you mean 'siftflow'"),
        (["dis", "dis"], [], "twice"),
        (["a b=dis"], [], "letters"),
        ([""], [], "at least one"),
        (["dis"], ["siftflow:match.window=1"], "no contender is called 'siftflow'"),
    ],
)
def test_mistakes_are_named(names: list[str], settings: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        contenders(names, settings)


def scene_folder(folder: Path, names: list[str]) -> Path:
    (folder / "images").mkdir(parents=True)
    pose = {"R": np.eye(3).tolist(), "t": [0, 0, 1]}
    lens = {"width": 8, "height": 6, "fx": 9, "fy": 9, "cx": 3.5, "cy": 2.5}
    entries = [{"name": name, **lens, **pose} for name in names]
    (folder / "cameras.json").write_text(json.dumps({"images": entries}))
    return folder


def test_scenes(tmp_path: Path) -> None:
    known = scene_folder(tmp_path / "castle", ["a.png", "b.png"])
    plain = tmp_path / "photos"
    plain.mkdir()
    found = find_scene(known)
    assert (found.name, found.photos) == ("castle", known / "images")
    assert found.truth is not None
    assert sorted(found.truth.cameras) == ["a.png", "b.png"]
    assert find_scene(plain).truth is None
    given = find_scene(plain, truth=known)
    assert given.photos == plain
    assert given.truth is not None
    with pytest.raises(UsageError, match="no data set of this name"):
        find_scene(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="did you mean 'fountain-P11'"):
        find_scene("fountain-P1")
    (known / "images").rmdir()
    with pytest.raises(ReconError, match="has no photos"):
        find_scene(known)
