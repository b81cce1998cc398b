"""Small parts of the comparison: whose cameras, which photos are left out, distances that pictures are coloured by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from recon.compare.engine import run_folder
from recon.compare.left_out import choose
from recon.compare.options import Options
from recon.compare.pictures import from_easy_to_hard, spread_rows
from recon.compare.plan import Scene
from recon.compare.results import poses_in_words, poses_place
from recon.evaluation.views import psnr_whole

OUT = Path("/out")


def place(poses: str, label: str) -> str:
    options = Options(poses=poses, labels=("a", "b"))
    scene = Scene("s", Path("/photos"), truth_place=Path("/truth"))
    return poses_place(scene, options, label, lambda one: run_folder(OUT, one, options, 0))


def test_whose_cameras() -> None:
    assert place("each", "a") == ""
    assert place("gt", "a") == "/truth"
    assert place("a", "a") == ""  # the reference finds its own
    assert place("a", "b") == str(OUT / "runs-a" / "a")
    assert place("/models/one", "b") == "/models/one"
    assert "true cameras" in poses_in_words(Options(poses="gt"))


def test_runs_of_other_cameras_and_seeds_have_folders_of_their_own() -> None:
    options = Options()
    folders = {
        run_folder(OUT, "a", one, seed)
        for one in (options, replace(options, poses="gt"), replace(options, poses="../x/y"))
        for seed in (0, 1)
    }
    assert len(folders) == 6
    assert all(OUT in folder.parents and ".." not in folder.parts for folder in folders)


def test_left_out_photos_are_inside_the_set() -> None:
    names = tuple(f"{i}.png" for i in range(11))
    assert choose(names, 1) == ["5.png"]
    assert choose(names, 3) == ["2.png", "5.png", "8.png"]
    for count in range(1, 30):
        found = choose(names, count)
        assert len(set(found)) == len(found) <= 9
        assert "0.png" not in found
        assert "10.png" not in found


def test_holes_count_as_the_mean_colour() -> None:
    photo = np.zeros((10, 10, 3), np.uint8)
    photo[:, 5:] = 100
    usable = np.ones((10, 10), bool)
    covered = np.zeros((10, 10), bool)
    covered[:, 5:] = True
    picture = np.full((10, 10, 3), 100, np.uint8)
    # Half of the pixels are right, the other half are told to be 50 and are 0.
    expected = 10 * np.log10(255**2 / (50.0**2 / 2))
    assert np.isclose(psnr_whole(picture, covered, photo, usable, (1.0, 1.0, 1.0)), expected)
    assert psnr_whole(photo, usable, photo, usable, (1.0, 1.0, 1.0)) == np.inf


def test_pairs_from_easy_to_hard() -> None:
    listing = [
        {"i": 0, "j": j, "sparse_inliers": n} for j, n in ((1, 5), (2, 900), (3, 40), (4, 300), (5, 70))
    ]
    assert [pair["sparse_inliers"] for pair in from_easy_to_hard(listing, 3)] == [900, 70, 5]
    assert len(from_easy_to_hard(listing[:1], 3)) == 1


def test_drawn_matches_are_spread() -> None:
    rng = np.random.default_rng(0)
    crowd = rng.uniform([0, 0], [30, 30], (5000, 2))
    alone = np.array([[600.0, 400.0], [300.0, 100.0]])
    rows = spread_rows(np.concatenate([crowd, alone]), 640, 480)
    assert {5000, 5001} <= set(rows)
    assert len(rows) <= 60
    assert spread_rows(np.zeros((0, 2)), 640, 480) == []
