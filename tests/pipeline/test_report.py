"""report.html of real workspaces: finished, stopped early, failed, damaged."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest

from recon.api import reconstruct, stages
from recon.errors import ReconError
from recon.io.surfaces import read_points_ply
from recon.run.folder import REPORT
from recon.stages.report import write_partial_report
from tests.support.scenes import SceneFolder

SECTIONS = {
    "photos": ("photos",),
    "pairs": ("verify",),
    "matches": ("verify",),
    "view": ("map",),
    "histograms": ("map",),
    "depth": ("map", "depth"),
}
"""Parts of the page, and the stages that each needs."""


def header_of(text: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="scene-header">(.*?)</script>', text, re.S)
    assert found is not None
    return dict(json.loads(found[1]))


def copy_until(finished: Path, folder: Path, last: str) -> Path:
    """The run as if it had been stopped after a stage; what later stages left lies there and is no longer true."""
    out = folder / "out"
    shutil.copytree(finished, out)
    (out / REPORT).unlink()
    manifest = json.loads((out / "manifest.json").read_text())
    names = [stage.name for stage in stages()]
    for name in names[names.index(last) + 1 :]:
        manifest["stages"][name]["state"] = "stale"
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def test_a_finished_run_shows_everything(finished: Path) -> None:
    text = (finished / REPORT).read_text(encoding="utf-8")
    assert len(text.encode()) < 25_000_000
    for section in SECTIONS:
        assert f'<section id="{section}"' in text
    assert "Not shown" not in text
    header = header_of(text)
    model = pycolmap.Reconstruction(finished / "sparse" / "0")
    assert header["sparse"]["of"] == model.num_points3D()  # type: ignore[index]
    assert header["dense"]["of"] == len(read_points_ply(finished / "dense" / "points.ply"))  # type: ignore[index]
    assert header["mesh"]["uv"]["count"] > 0  # type: ignore[index]
    assert len(header["cameras"]) == model.num_reg_images()  # type: ignore[arg-type]
    summary = json.loads((finished / "summary.json").read_text())
    texture = json.loads((finished / "mesh" / "texture.json").read_text())
    assert summary["texture"]["faces"] == texture["faces"]
    assert summary["texture"]["seen_share"] == texture["seen_share"]
    for place in (text, (finished / "summary.txt").read_text()):
        assert f"{texture['texture']} texels on {texture['faces']} faces" in place
    recipe = (finished / "recipe.toml").read_text()
    assert recipe.strip() in unescape(text)


def test_errors_of_the_page_are_those_of_the_model(finished: Path) -> None:
    """The mean over the photos' observations is COLMAP's own mean reprojection error, where all points are shown."""
    text = (finished / REPORT).read_text(encoding="utf-8")
    model = pycolmap.Reconstruction(finished / "sparse" / "0")
    number = re.search(r"(\d+) values; median [\d.]+ px, mean ([\d.]+) px", text)
    assert number is not None
    assert int(number[1]) == model.compute_num_observations()
    weighted = [point.error * point.track.length() for point in model.points3D.values()]
    expected = sum(weighted) / model.compute_num_observations()
    assert float(number[2]) == pytest.approx(expected, rel=0.02)
    lengths = re.search(r"(\d+) values; median [\d.]+ photos, mean ([\d.]+) photos", text)
    assert lengths is not None
    assert float(lengths[2]) == pytest.approx(model.compute_mean_track_length(), rel=0.01)


@pytest.mark.parametrize("last", ["photos", "pairs", "verify", "map", "depth", "fuse", "mesh"])
def test_a_run_that_was_stopped_shows_what_it_did(finished: Path, tmp_path: Path, last: str) -> None:
    out = copy_until(finished, tmp_path, last)
    assert write_partial_report(out) == out / REPORT
    text = (out / REPORT).read_text(encoding="utf-8")
    names = [stage.name for stage in stages()]
    done = set(names[: names.index(last) + 1])
    for section, needed in SECTIONS.items():
        assert (f'<section id="{section}"' in text) == (set(needed) <= done), section
    assert "Not shown" not in text
    assert "did not come to its end" not in text
    if "map" in done:
        header = header_of(text)
        assert (header["dense"] is not None) == ("fuse" in done)
        assert (header["mesh"] is not None) == ("mesh" in done)
        if last == "mesh":
            assert "rgb" in header["mesh"]  # type: ignore[operator]


def test_stopping_on_purpose_leaves_a_page(scene: SceneFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    reconstruct(scene.photos, out, quality="preview", stop_after="photos", threads=1)
    text = (out / REPORT).read_text(encoding="utf-8")
    assert text.count('class="enlarge"') == 8
    assert "8 given, 8 used" in text


def test_what_is_damaged_is_told_and_the_rest_is_shown(finished: Path, tmp_path: Path) -> None:
    out = copy_until(finished, tmp_path, "texture")
    (out / "dense" / "points.ply").write_bytes(b"no cloud")
    (out / "mesh" / "textured.glb").write_bytes(b"no mesh")
    (out / "photos" / "0002.png.png").write_bytes(b"no picture")
    next((out / "dense" / "depth").glob("3.npz")).unlink()
    assert write_partial_report(out) is not None
    text = (out / REPORT).read_text(encoding="utf-8")
    for what in ("the dense cloud", "the mesh", "0002.png", "one depth map (4)"):
        assert f"Not shown: {what}" in text
    header = header_of(text)
    assert header["dense"] is None
    assert header["sparse"] is not None
    assert len(header["cameras"]) == 8  # type: ignore[arg-type]


def test_a_run_that_fails_says_so_in_its_page(tmp_path: Path) -> None:
    photos = tmp_path / "photos <b> ü"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        noise = rng.integers(0, 255, (90, 120, 3)).astype(np.uint8)
        cv2.imwrite(str(photos / f"{number}.png"), cv2.resize(noise, (240, 180)))
    out = tmp_path / "out"
    with pytest.raises(ReconError) as caught:
        reconstruct(photos, out, quality="preview", threads=1)
    text = (out / REPORT).read_text(encoding="utf-8")
    assert "This run did not come to its end" in text
    assert str(caught.value)[:60] in unescape(text)
    assert "photos &lt;b&gt; ü" in text
    assert text.count('class="enlarge"') == 3


def test_a_folder_that_is_no_workspace_gets_no_page(tmp_path: Path) -> None:
    assert write_partial_report(tmp_path) is None
    assert write_partial_report(tmp_path / "nowhere", ReconError("x")) is None
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_in_use_keeps_its_page(finished: Path, tmp_path: Path) -> None:
    """Nothing failed there: the error belongs to the run that came too late."""
    out = copy_until(finished, tmp_path, "depth")
    assert write_partial_report(out, ReconError("the workspace is in use")) is None
    assert not (out / REPORT).exists()
