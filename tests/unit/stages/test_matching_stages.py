"""Stages from match to tracks with matchers of the test's own, on windows of one image: every true match is known."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from pydantic import BaseModel

from recon.engine.recipe import Recipe
from recon.engine.runner import InterruptedRunError, RunOptions, RunSummary, run_stages
from recon.engine.stage import StageContext
from recon.errors import ReconError, UsageError
from recon.graph.view_graph import flow_loop_error
from recon.matching import registry
from recon.matching.types import Capabilities, DenseMatch, FlowField, MatchImage, SparseMatch
from recon.run import photo_changes
from recon.run.folder import RunFolder
from recon.run.inputs import RunInputs
from recon.stages.features import FeaturesStage
from recon.stages.match import MatchStage
from recon.stages.pairs import PairsStage
from recon.stages.photos import PhotosStage
from recon.stages.tracks import TracksStage
from recon.stages.verify import VerifyStage
from recon.tasks import verification

OFFSETS = ((0, 0), (30, 10), (55, 25), (20, 40))
"""Where the photos lie in the whole image."""

SIZE = (240, 180)
STAGES = (PhotosStage(), FeaturesStage(), PairsStage(), MatchStage(), VerifyStage(), TracksStage())


@cache
def whole_image() -> np.ndarray:
    rng = np.random.default_rng(1)
    image = np.zeros((260, 330, 3), np.float32)
    for sigma, weight in ((1.2, 1.0), (3, 1.5), (8, 2.0)):
        blurred = cv2.GaussianBlur(rng.standard_normal(image.shape).astype(np.float32), (0, 0), sigma)
        image += weight * blurred / blurred.std()
    image -= image.min()
    return (255 * image / image.max()).astype(np.uint8)


@cache
def whole_rgb() -> np.ndarray:
    return np.ascontiguousarray(whole_image()[:, :, ::-1])  # OpenCV writes BGR


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    whole = whole_image()
    for number, (x, y) in enumerate(OFFSETS):
        cv2.imwrite(str(folder / f"{number}.png"), whole[y : y + SIZE[1], x : x + SIZE[0]])
    run(folder, Path(f"{folder}-looked-at"), stop_after="pairs", matcher="dis")
    return folder


@pytest.fixture(autouse=True)
def _own_matchers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "registered", {})


def run(
    photos: Path,
    out: Path,
    *,
    stop_after: str | None = None,
    restart_from: str | None = None,
    retrieval: bool = False,
    inputs: Any = None,
    **match: Any,
) -> RunSummary:
    settings: dict[str, BaseModel] = {stage.name: stage.Settings() for stage in STAGES}
    settings["photos"] = PhotosStage.Settings(camera_sharing="single")
    if retrieval:
        settings["pairs"] = PairsStage.Settings(mode="retrieval")
    settings["match"] = MatchStage.Settings.variant(match)(**match)
    settings["verify"] = VerifyStage.Settings(min_sparse_inliers=10, min_inliers=10)
    settings["tracks"] = TracksStage.Settings(refine=False)
    recipe = Recipe("test", "", "normal", settings, Path("test.toml"))
    looked_at = Path(f"{photos}-looked-at")
    if looked_at.is_dir() and not out.exists():
        shutil.copytree(looked_at, out)  # the first stages know nothing of matchers
    options = RunOptions(
        RunInputs((str(photos),), **(inputs or {})),
        source=str(photos),
        threads=2,
        stop_after=stop_after,
        restart_from=restart_from,
    )
    return run_stages(STAGES, recipe, out, options)


def context(out: Path) -> StageContext:
    return StageContext(root=out)


def place(image: MatchImage, whole: np.ndarray) -> tuple[int, int]:
    """Which window of the whole an image is, by looking."""
    found = cv2.matchTemplate(whole, np.ascontiguousarray(image.rgb[20:80, 20:80]), cv2.TM_SQDIFF)
    y, x = np.unravel_index(found.argmin(), found.shape)
    return int(x) - 20, int(y) - 20


def truth(a: MatchImage, b: MatchImage) -> SparseMatch:
    """True matches of two windows, on a grid of the whole image."""
    whole = whole_rgb()
    corners = [np.array(place(image, whole)) for image in (a, b)]
    grid = np.stack(np.meshgrid(np.arange(5, 325, 9), np.arange(5, 255, 9)), -1).reshape(-1, 2)
    inside = [
        ((grid >= corner) & (grid <= corner + np.array(image.rgb.shape[1::-1]) - 1)).all(axis=1)
        for corner, image in zip(corners, (a, b), strict=True)
    ]
    both = grid[inside[0] & inside[1]]
    return SparseMatch(
        (both - corners[0]).astype(np.float32),
        (both - corners[1]).astype(np.float32),
        np.linspace(0.1, 1, len(both), dtype=np.float32),
    )


class Oracle:
    """Knows the truth; may go wrong on the pair of two windows."""

    name = "oracle"
    wrong: ClassVar[Callable[[SparseMatch], Any] | None] = None
    calls: ClassVar[list[tuple[int, int]]] = []
    stop_at: ClassVar[int] = -1

    def match(self, a: MatchImage, b: MatchImage, context: Any) -> Any:  # noqa: ARG002
        whole = whole_rgb()
        pair = tuple(OFFSETS.index(place(image, whole)) for image in (a, b))
        if len(Oracle.calls) == Oracle.stop_at:
            raise KeyboardInterrupt
        Oracle.calls.append(pair)  # type: ignore[arg-type]
        right = truth(a, b)
        return Oracle.wrong(right) if Oracle.wrong is not None and set(pair) == {1, 2} else right


@pytest.fixture(autouse=True)
def _fresh_oracle() -> Iterator[None]:
    Oracle.wrong, Oracle.calls, Oracle.stop_at = None, [], -1
    yield
    Oracle.wrong = None


def test_a_sparse_matcher_goes_through_to_tracks(photos: Path, tmp_path: Path) -> None:
    registry.register(Oracle)
    summary = run(photos, tmp_path / "out", matcher="oracle")
    work = context(tmp_path / "out")
    matching = RunFolder(work.root).matching
    assert (matching.matcher, matching.kind) == ("oracle", "sparse")
    assert len(matching.pairs) == 6
    for i, j in matching.pairs:
        match = RunFolder(work.root).sparse_match((i, j))
        np.testing.assert_array_equal(match.xy_a + OFFSETS[i], match.xy_b + OFFSETS[j])
        assert RunFolder(work.root).inliers((i, j)).mean() > 0.95
    assert RunFolder(work.root).view_graph().number_of_edges() == 6
    tracks = RunFolder(work.root).tracks()
    places = tracks.xy + np.array(OFFSETS)[tracks.photo_id]
    # All observations of a track are one place of the whole image, and no place has two tracks.
    first = places[np.searchsorted(tracks.track_id, np.arange(tracks.count))]
    np.testing.assert_array_equal(places, first[tracks.track_id])
    assert len(np.unique(first, axis=0)) == tracks.count > 200
    figures = summary.counts("match")
    assert figures["pairs"] == 6
    mean = np.mean([len(RunFolder(work.root).sparse_match(pair).score) for pair in matching.pairs])
    assert figures["matches_per_pair"] == pytest.approx(mean, abs=1e-3)
    assert figures["seconds_per_pair"] > 0
    again = run(photos, tmp_path / "out", matcher="oracle")
    assert all(stage.skipped for stage in again.stages)


def nan(match: SparseMatch) -> SparseMatch:
    match.xy_a[3, 0] = np.nan
    return match


def outside(match: SparseMatch) -> SparseMatch:
    match.xy_b[3] = (500, 20)
    return match


def raising(match: SparseMatch) -> SparseMatch:
    raise RuntimeError(f"cannot do {len(match.score)}\n  matches")


GARBAGE = {
    "raises": (raising, r"RuntimeError: cannot do \d+ matches"),
    "nan": (nan, "xy_a has 1 values that are not finite"),
    "outside": (outside, r"xy_b has 1 of \d+ points outside .* \(500\.0, 20\.0\)"),
    "shape": (lambda m: SparseMatch(m.xy_a, m.xy_b[:-1], m.score), "xy_b is an array"),
    "flat": (lambda m: SparseMatch(m.xy_a.ravel(), m.xy_b, m.score), "xy_a is an array"),
    "score": (lambda m: SparseMatch(m.xy_a, m.xy_b, m.score * 7), "score goes from"),
    "none": (lambda _: None, "a NoneType, a SparseMatch was expected"),
    "tuple": (lambda m: (m.xy_a, m.xy_b), "a tuple, a SparseMatch was expected"),
    "whole numbers": (lambda m: SparseMatch(m.xy_a.astype(int), m.xy_b, m.score), "float32 was expected"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_pair_on_which_the_matcher_fails_is_reported_and_left_out(
    photos: Path, tmp_path: Path, kind: str
) -> None:
    registry.register(Oracle)
    wrong, message = GARBAGE[kind]
    Oracle.wrong = staticmethod(wrong)  # type: ignore[assignment]
    summary = run(photos, tmp_path / "out", matcher="oracle")
    work = context(tmp_path / "out")
    (warning,) = [text for text in summary.warnings if "left out" in text]
    assert "'oracle'" in warning
    assert "1.png and 2.png" in warning
    failed = json.loads((tmp_path / "out" / "matching.json").read_text())["failed"]
    assert [(one["a"], one["b"], one["matcher"]) for one in failed] == [("1.png", "2.png", "oracle")]
    assert re.search(message, failed[0]["reason"]), failed[0]["reason"]
    assert summary.counts("match")["pairs_failed"] == 1
    assert (1, 2) not in RunFolder(work.root).matching.pairs
    assert RunFolder(work.root).view_graph().number_of_edges() == 5
    assert RunFolder(work.root).tracks().count > 200


def test_a_matcher_that_fails_everywhere_ends_the_run(photos: Path, tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def match(self, a, b, context):  # type: ignore[no-untyped-def]  # noqa: ARG002
            raise ValueError("no luck")

    registry.register(Broken)
    with pytest.raises(ReconError, match=r"'broken' failed on every pair: ValueError: no luck"):
        run(photos, tmp_path / "out", matcher="broken")


def test_double_precision_is_taken(photos: Path, tmp_path: Path) -> None:
    registry.register(Oracle)
    Oracle.wrong = staticmethod(  # type: ignore[assignment]
        lambda m: SparseMatch(*(values.astype(np.float64) for values in (m.xy_a, m.xy_b, m.score)))
    )
    run(photos, tmp_path / "out", matcher="oracle", stop_after="match")
    assert RunFolder(tmp_path / "out").sparse_match((1, 2)).xy_a.dtype == np.float32


def test_pairs_survive_an_interruption(photos: Path, tmp_path: Path) -> None:
    registry.register(Oracle)
    Oracle.stop_at = 3
    with pytest.raises(InterruptedRunError):
        run(photos, tmp_path / "out", matcher="oracle")
    before = set(Oracle.calls)
    assert 3 <= len(before) < 6
    Oracle.stop_at, Oracle.calls = -1, []
    run(photos, tmp_path / "out", matcher="oracle")
    done = {tuple(sorted(pair)) for pair in Oracle.calls}
    assert done < {(i, j) for i in range(4) for j in range(i + 1, 4)}
    whole = tmp_path / "whole"
    run(photos, whole, matcher="oracle")
    for pair in RunFolder(whole).matching.pairs:
        one, other = (RunFolder(out).sparse_match(pair) for out in (whole, tmp_path / "out"))
        np.testing.assert_array_equal(one.xy_b, other.xy_b)


class DenseOracle:
    """The true flow of two windows."""

    name = "dense-oracle"
    capabilities = Capabilities(kind="dense")
    calls: ClassVar[list[int]] = []

    def match(self, a: MatchImage, b: MatchImage, context: Any) -> DenseMatch:  # noqa: ARG002
        DenseOracle.calls.append(1)
        whole = whole_rgb()
        step = np.array(place(a, whole)) - np.array(place(b, whole))
        sides = []
        for image, other, (dx, dy) in ((a, b, step), (b, a, -step)):
            height, width = image.rgb.shape[:2]
            y, x = np.mgrid[:height, :width]
            limit = other.rgb.shape[:2]
            inside = (x + dx >= 0) & (y + dy >= 0) & (x + dx < limit[1]) & (y + dy < limit[0])
            flow = np.broadcast_to(np.array([dx, dy], np.float32), (height, width, 2)).copy()
            sides.append((FlowField(flow, inside.astype(np.float32)), inside))
        return DenseMatch(sides[0][0], sides[1][0], sides[0][1], sides[1][1])


def test_changing_the_kind_of_matcher_leaves_nothing_stale(photos: Path, tmp_path: Path) -> None:
    registry.register(Oracle)
    registry.register(DenseOracle)
    out = tmp_path / "out"
    run(photos, out, matcher="dense-oracle")
    assert (out / "flows.zarr").is_dir()
    assert not (out / "matches").exists()
    dense = RunFolder(out).dense_match((0, 1))
    np.testing.assert_array_equal(dense.a_to_b.flow[5, 5], -np.array(OFFSETS[1]))
    assert RunFolder(out).tracks().count > 50
    run(photos, out, matcher="oracle")
    assert not (out / "flows.zarr").exists()
    assert (out / "matches").is_dir()
    assert RunFolder(out).matching.kind == "sparse"


def test_runs_share_dense_fields(photos: Path, tmp_path: Path) -> None:
    registry.register(DenseOracle)
    DenseOracle.calls.clear()
    inputs = {"field_cache": str(tmp_path / "cache")}
    first = run(photos, tmp_path / "one", matcher="dense-oracle", stop_after="match", inputs=inputs)
    assert len(DenseOracle.calls) == 6
    second = run(photos, tmp_path / "two", matcher="dense-oracle", stop_after="match", inputs=inputs)
    assert len(DenseOracle.calls) == 6
    assert first.counts("match") == second.counts("match")
    for pair in RunFolder(tmp_path / "one").matching.pairs:
        one, two = (RunFolder(tmp_path / name).dense_match(pair) for name in ("one", "two"))
        np.testing.assert_array_equal(one.b_to_a.flow, two.b_to_a.flow)
    # Another size is another field.
    run(photos, tmp_path / "three", matcher="dense-oracle", stop_after="match", inputs=inputs, max_size=120)
    assert len(DenseOracle.calls) == 12


def test_garbage_of_a_dense_matcher_is_left_out(photos: Path, tmp_path: Path) -> None:
    class Wrong(DenseOracle):
        name = "wrong"

        def match(self, a: MatchImage, b: MatchImage, context: Any) -> DenseMatch:
            whole = whole_rgb()
            right = super().match(a, b, context)
            pair = {OFFSETS.index(place(image, whole)) for image in (a, b)}
            if pair == {0, 1}:
                right.a_to_b.flow[7, 7] = np.inf
            if pair == {0, 2}:
                right.consistent_b[...] = True
            if pair == {0, 3}:
                return DenseMatch(right.a_to_b, right.b_to_a, right.consistent_a[1:], right.consistent_b)
            return right

    registry.register(Wrong)
    # Photos that are shifted far would come shifted, and the oracle would not know which they are.
    summary = run(photos, tmp_path / "out", matcher="wrong", stop_after="verify", turn_upright=False)
    failed = json.loads((tmp_path / "out" / "matching.json").read_text())["failed"]
    reasons = {(one["i"], one["j"]): one["reason"] for one in failed}
    assert "a_to_b.flow has 2 values that are not finite" in reasons[0, 1]
    assert "consistent_b marks" in reasons[0, 2]
    assert "consistent_a is an array" in reasons[0, 3]
    assert summary.counts("match")["pairs"] == 3
    assert RunFolder(tmp_path / "out").view_graph().number_of_edges() == 3


def test_a_turned_photo_is_matched_upright_and_its_points_come_back(photos: Path, tmp_path: Path) -> None:
    turned = tmp_path / "photos"
    turned.mkdir()
    for number in range(3):
        image = cv2.imread(str(photos / f"{number}.png"))
        cv2.imwrite(str(turned / f"{number}.png"), np.rot90(image) if number == 2 else image)
    registry.register(Oracle)
    run(turned, tmp_path / "out", matcher="oracle", stop_after="match")
    match = RunFolder(tmp_path / "out").sparse_match((0, 2))
    # numpy.rot90 takes (x, y) of an image of this width to (y, width - 1 - x).
    upright = np.stack([SIZE[0] - 1 - match.xy_b[:, 1], match.xy_b[:, 0]], axis=1)
    np.testing.assert_array_equal(match.xy_a + OFFSETS[0], upright + OFFSETS[2])


def test_the_dense_matcher_of_a_sparse_one_must_be_dense(photos: Path, tmp_path: Path) -> None:
    registry.register(Oracle)
    with pytest.raises(UsageError, match="dense_matcher: 'sift' finds sparse matches"):
        run(photos, tmp_path / "out", matcher="oracle", dense_matcher="sift")
    with pytest.raises(UsageError, match="siftflo"):
        run(photos, tmp_path / "out", matcher="oracle", dense_matcher="siftflo")
    with pytest.raises(UsageError, match="no_such"):
        run(photos, tmp_path / "out", matcher="oracle", dense_settings={"no_such": 1})


def test_sift_gives_the_same_tracks_with_any_number_of_threads(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "one", matcher="sift")
    run(photos, tmp_path / "two", matcher="sift")
    one, two = (RunFolder(tmp_path / name).tracks() for name in ("one", "two"))
    np.testing.assert_array_equal(one.xy, two.xy)
    places = one.xy + np.array(OFFSETS)[one.photo_id]
    first = places[np.searchsorted(one.track_id, np.arange(one.count))]
    assert np.median(np.linalg.norm(places - first[one.track_id], axis=1)) < 0.1


def test_one_photo_more_or_less_does_only_its_own_pairs_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a photo came or went, in the midst of the names, the folder is that of a run from nothing."""
    rounds: list[int] = []

    def counted(legs: Any) -> float | None:
        rounds.append(len(legs))
        return flow_loop_error(legs)

    monkeypatch.setattr(verification, "flow_loop_error", counted)
    registry.register(DenseOracle)
    some, out = tmp_path / "some", tmp_path / "out"
    shutil.copytree(photos, some)
    (some / "1.png").unlink()

    STEPS = ("features", "pairs", "match", "verify")

    def look(summary: RunSummary) -> list[int]:
        return [summary.counts(name).get("kept_of_before", 0) for name in STEPS]

    def results(root: Path) -> dict[str, bytes]:
        names = ["pairs.json", "sparse_matches.npz", "sparse_looks.npz", "two_view.npz", "tracks.npz"]
        names += ["view_graph.graphml", "pair_evidence.graphml", "flow_loops.json"]
        files = [root / name for name in names]
        files += [path for path in (root / "features").iterdir() if path.is_file()]
        files += [path for path in (root / "flows.zarr").rglob("*") if path.is_file() and "/c/" in str(path)]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}

    assert look(run(some, out, matcher="dense-oracle")) == [0, 0, 0, 0]
    assert len(rounds) == 1
    three = results(out)
    DenseOracle.calls.clear()
    shutil.copy(photos / "1.png", some)
    assert look(run(some, out, matcher="dense-oracle")) == [3, 3, 3, 3]
    assert len(DenseOracle.calls) == 3
    assert len(rounds) == 4
    run(photos, tmp_path / "whole", matcher="dense-oracle")
    assert results(out) == results(tmp_path / "whole")
    DenseOracle.calls.clear()
    rounds.clear()
    (some / "1.png").unlink()
    assert look(run(some, out, matcher="dense-oracle")) == [3, 3, 3, 3]
    assert not DenseOracle.calls
    assert not rounds
    assert results(out) == three
    # Who asks for everything anew gets it.
    options = RunOptions(
        RunInputs((str(some),)), source=str(some), restart_from="features", stop_after="match"
    )
    settings: dict[str, BaseModel] = {stage.name: stage.Settings() for stage in STAGES}
    settings["match"] = MatchStage.Settings.variant({"matcher": "dense-oracle"})(matcher="dense-oracle")
    assert (
        look(run_stages(STAGES, Recipe("test", "", "normal", settings, Path("t.toml")), out, options))
        == [0] * 4
    )
    assert len(DenseOracle.calls) == 3


def test_the_words_of_retrieval_stay_while_few_photos_come(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_changes, "_MOST_CHANGED", 0.4)
    registry.register(DenseOracle)
    some, out = tmp_path / "some", tmp_path / "out"
    shutil.copytree(photos, some)
    (some / "1.png").unlink()

    def words_after(**how: Any) -> np.ndarray:
        run(some, out, matcher="dense-oracle", stop_after="pairs", retrieval=True, **how)
        kept = RunFolder(out).kept_vocabulary()
        assert kept is not None
        return kept[1]

    first = words_after()
    shutil.copy(photos / "1.png", some)
    np.testing.assert_array_equal(words_after(), first)
    assert not np.array_equal(words_after(restart_from="pairs"), first)
    before = words_after()
    for name in ("1.png", "2.png"):
        (some / name).unlink()
    assert not np.array_equal(words_after(), before)
