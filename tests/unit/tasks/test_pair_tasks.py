"""Tasks on single photos and pairs, before cameras are known: called, pickled as for other processes, and lost."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from recon.core.cameras import Intrinsics
from recon.engine.stage import StageContext
from recon.io.pictures import encode_picture
from recon.photos.types import Photo, PhotoSet
from recon.run.folder import POINTS, RunFolder
from recon.run.matches import FLOWS
from recon.run.photos import PHOTOS, photo_file
from recon.tasks.features import ExtractPoints
from recon.tasks.looks import LookAtPair, LookOptions, look_key
from recon.tasks.matching import MatchPair

SIZE = (200, 150)
SHIFT = (14, 9)
"""Photo 1 shows what photo 0 shows, so many pixels further right and down; photo 2 shows something else."""

OPTIONS = LookOptions(ratio=0.8, min_inliers=15, min_inlier_ratio=0.25, max_error=4.0, seed=0)


def texture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.zeros((SIZE[1] + SHIFT[1], SIZE[0] + SHIFT[0], 3))
    for sigma in (1.2, 3.0, 8.0):
        blurred = cv2.GaussianBlur(rng.standard_normal(image.shape), (0, 0), sigma)
        image += blurred / blurred.std()
    return (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)


@pytest.fixture
def work(tmp_path: Path) -> StageContext:
    """A workspace with three photos."""
    whole, (width, height), (dx, dy) = texture(0), SIZE, SHIFT
    pictures = [whole[:height, :width], whole[dy:, dx:], texture(1)[:height, :width]]
    photos = tuple(Photo(i, f"{i}.jpg", f"sha{i}", width, height, width, height, 0) for i in range(3))
    lens = Intrinsics("PINHOLE", (180.0, 180.0, 99.5, 74.5), width, height)
    context = StageContext(tmp_path, "photos", "test")
    RunFolder.of(context).write_photo_set(PhotoSet(photos, (lens,)))
    with context.fresh_directory(PHOTOS) as folder:
        for photo, picture in zip(photos, pictures, strict=True):
            (folder / photo_file(photo.name)).write_bytes(encode_picture(np.ascontiguousarray(picture)))
    return context


def with_points(work: StageContext) -> RunFolder:
    with work.resumable_directory(POINTS) as folder:
        task = ExtractPoints(work.root, folder, 2000, None)
        for photo in RunFolder(work.root).photo_set.photos:
            task(photo)
        task.close()
    return RunFolder(work.root)


def test_points_of_a_photo_are_written_once(work: StageContext) -> None:
    photos = RunFolder(work.root).photo_set.photos
    with work.resumable_directory(POINTS) as folder:
        task = pickle.loads(pickle.dumps(ExtractPoints(work.root, folder, 300, None)))
        count = task(photos[0])
        assert 50 < count <= 300
        first = (folder / "0.npz").read_bytes()
        fewer = replace(task, max_points=10)
        assert fewer(photos[0]) == count  # what is there stays
        assert (folder / "0.npz").read_bytes() == first
        assert fewer(photos[1]) <= 10
        assert task.lost(photos[2]) == 0
        task.close()
    run = RunFolder(work.root)
    assert [len(run.points(number)) for number in (0, 2)] == [count, 0]


def test_a_look_finds_the_shift_and_nothing_between_strangers(work: StageContext) -> None:
    run = with_points(work)
    look = pickle.loads(pickle.dumps(LookAtPair(work.root, OPTIONS, 1 << 24, "token")))
    rows = look((0, 1))
    moves = run.points(0).xy[rows[:, 0]] - run.points(1).xy[rows[:, 1]]
    assert len(rows) > 30
    np.testing.assert_allclose(np.median(moves, axis=0), SHIFT, atol=0.1)
    assert look((0, 2)).shape == (0, 2)
    # More than there are: the pair has no evidence.
    none = LookAtPair(work.root, replace(OPTIONS, min_inliers=len(rows) + 1), 1 << 24, "other token")
    assert none((0, 1)).shape == (0, 2)
    none.close()


def test_the_key_of_a_look_follows_its_points_and_options(work: StageContext) -> None:
    run = with_points(work)
    key = look_key(run, OPTIONS, (0, 1))
    assert look_key(RunFolder(work.root), OPTIONS, (0, 1)) == key
    others = [
        look_key(run, OPTIONS, (0, 2)),
        look_key(run, replace(OPTIONS, ratio=0.7), (0, 1)),
        look_key(run, replace(OPTIONS, seed=1), (0, 1)),
    ]
    with work.fresh_directory(POINTS) as folder:
        task = ExtractPoints(work.root, folder, 100, None)
        for photo in run.photo_set.photos:
            task(photo)
        task.close()
    others.append(look_key(RunFolder(work.root), OPTIONS, (0, 1)))
    assert len({key, *others}) == 5


def test_a_match_is_written_once_and_lies_where_the_photos_do(work: StageContext) -> None:
    with_points(work)
    RunFolder.of(work).write_looks({})
    RunFolder.of(work).write_pairs({(0, 1): 0}, {})
    with work.resumable_directory(FLOWS) as store:
        task = pickle.loads(pickle.dumps(MatchPair(work.root, store, "dis", "{}", 200, False, None, "token")))
        outcome = task((0, 1))
        assert outcome.failure == ""
        assert task((0, 1)) == outcome  # read from what is there, its seconds too
        assert "ended the process" in task.lost((1, 2)).failure
        task.close()
    flow = RunFolder(work.root).dense_match((0, 1)).a_to_b.flow
    inside = flow[30:-30, 30:-30]
    np.testing.assert_allclose(np.median(inside.reshape(-1, 2), axis=0), [-SHIFT[0], -SHIFT[1]], atol=0.1)
