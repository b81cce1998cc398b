"""Readers of semantic benchmarks on small data sets made in the official layouts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from recon.datasets.cards import load_cards
from recon.datasets.semantic import BENCHMARKS, divide, load_pairs, read_willow_class
from recon.errors import ReconError, UsageError


def image(path: Path, width: int = 60, height: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def table(path: Path, header: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


POINTS = np.array([[10.0, 12.0], [30.0, 8.5], [np.nan, np.nan], [44.0, 30.0]])
OTHER = np.array([[11.0, 13.0], [np.nan, np.nan], [20.0, 20.0], [40.0, 31.0]])


@pytest.fixture
def pf_pascal(tmp_path: Path) -> Path:
    root = tmp_path / "PF-PASCAL"
    for name, points in (("a", POINTS), ("b", OTHER)):
        image(root / "JPEGImages" / f"{name}.jpg")
        path = root / "Annotations" / "bicycle" / f"{name}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        savemat(path, {"kps": points, "bbox": np.array([[1, 2, 50, 39]])})
    row = ["PF-dataset-PASCAL/JPEGImages/a.jpg", "PF-dataset-PASCAL/JPEGImages/b.jpg", 2]
    table(root / "test_pairs.csv", ["source_image", "target_image", "class"], [row])
    table(root / "trn_pairs.csv", ["source_image", "target_image", "class", "flip"], [[*row, 0], [*row, 1]])
    table(root / "val_pairs.csv", ["source_image", "target_image", "class"], [])
    return tmp_path


def test_pf_pascal(pf_pascal: Path) -> None:
    (pair,) = load_pairs("pf-pascal", pf_pascal)
    assert pair.category == "bicycle"
    # Points that one image lacks are left out of both.
    np.testing.assert_array_equal(pair.source_points, POINTS[[0, 3]])
    np.testing.assert_array_equal(pair.target_points, OTHER[[0, 3]])
    assert pair.target_box == (1, 2, 50, 39)
    assert pair.target.name == "b.jpg"
    assert [p.flip for p in load_pairs("pf-pascal", pf_pascal / "PF-PASCAL", "trn")] == [False, True]
    with pytest.raises(ReconError, match="no pairs"):
        load_pairs("pf-pascal", pf_pascal, "val")
    (pf_pascal / "PF-PASCAL" / "Annotations" / "bicycle" / "b.mat").write_bytes(b"MATLAB? no")
    with pytest.raises(ReconError, match=r"b\.mat.*MATLAB"):
        load_pairs("pf-pascal", pf_pascal)


def test_pf_willow(tmp_path: Path) -> None:
    root = tmp_path / "PF-WILLOW"
    for name in ("Cars_000a", "Cars_001b"):
        image(root / "car(G)" / f"{name}.png")
    source = np.arange(20).reshape(10, 2) * 1.5
    target = np.arange(20)[::-1].reshape(10, 2) * 2.0
    row = [
        "PF-dataset/car(G)/Cars_000a.png",
        "PF-dataset/car(G)/Cars_001b.png",
        *source.T.ravel(),
        *target.T.ravel(),
    ]
    header = ["imageA", "imageB", *[f"{a}{i}" for a in ("XA", "YA", "XB", "YB") for i in range(10)]]
    table(root / "test_pairs.csv", header, [row])
    (pair,) = load_pairs("pf-willow", tmp_path)
    assert pair.category == "car(G)"
    np.testing.assert_array_equal(pair.source_points, source)
    np.testing.assert_array_equal(pair.target_points, target)
    table(root / "test_pairs.csv", header, [row[:-1]])
    with pytest.raises(ReconError, match="line 2 has 41 fields, 42"):
        load_pairs("pf-willow", tmp_path)
    table(root / "test_pairs.csv", header, [[*row[:-1], "left"]])
    with pytest.raises(ReconError, match=r"line 2.*left"):
        load_pairs("pf-willow", tmp_path)
    with pytest.raises(UsageError, match="no split 'val'"):
        load_pairs("pf-willow", tmp_path, "val")


@pytest.mark.parametrize("separator", [":", "_"])
def test_spair(tmp_path: Path, separator: str) -> None:
    root = tmp_path / "SPair-71k"
    for name in ("2008_1", "2009_2"):
        image(root / "JPEGImages" / "cat" / f"{name}.jpg")
    (root / "Layout" / "large").mkdir(parents=True)
    (root / "Layout" / "large" / "test.txt").write_text("000001-2008_1-2009_2:cat\n")
    annotation = {
        "category": "cat",
        "src_imname": "2008_1.jpg",
        "trg_imname": "2009_2.jpg",
        "src_kps": [[1, 2], [3, 4]],
        "trg_kps": [[5, 6], [7, 8]],
        "src_bndbox": [0, 0, 9, 9],
        "trg_bndbox": [1, 1, 59, 39],
        "viewpoint_variation": 2,
        "scale_variation": 1,
        "truncation": 0,
        "occlusion": 3,
    }
    path = root / "PairAnnotation" / "test" / f"000001-2008_1-2009_2{separator}cat.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(annotation))
    (pair,) = load_pairs("spair-71k", tmp_path)
    np.testing.assert_array_equal(pair.target_points, [[5, 6], [7, 8]])
    assert pair.target_box == (1, 1, 59, 39)
    assert pair.variation == {
        "viewpoint_variation": 2,
        "scale_variation": 1,
        "truncation": 0,
        "occlusion": 3,
    }
    path.write_text(json.dumps({**annotation, "src_kps": [[1, 2]]}))
    with pytest.raises(ReconError, match="different numbers"):
        load_pairs("spair-71k", tmp_path)
    path.write_text('{"category": "cat"}')
    with pytest.raises(ReconError, match="src_kps"):
        load_pairs("spair-71k", tmp_path)
    path.unlink()
    with pytest.raises(ReconError, match="annotation is missing"):
        load_pairs("spair-71k", tmp_path)


def test_caltech(tmp_path: Path) -> None:
    root = tmp_path / "Caltech-101"
    for name in ("image_0001", "image_0002"):
        image(root / "101_ObjectCategories" / "anchor" / f"{name}.jpg")
    names = [f"101_ObjectCategories/anchor/image_000{k}.jpg" for k in (1, 2)]
    row = [*names, 7, "1,2.5,3", "4,5,6", "10,20,20,10", "10,10,20,20"]
    header = ["source_image", "target_image", "class", "XA", "YA", "XB", "YB"]
    table(root / "test_pairs_caltech_with_category.csv", header, [row])
    (pair,) = load_pairs("caltech-101", tmp_path)
    assert pair.outlines
    assert pair.category == "anchor"
    np.testing.assert_array_equal(pair.source_points, [[1, 4], [2.5, 5], [3, 6]])
    assert len(pair.target_points) == 4
    table(root / "test_pairs_caltech_with_category.csv", header, [[*row[:3], "1,2", "4,5,6", *row[5:]]])
    with pytest.raises(ReconError, match="2 x and 3 y"):
        load_pairs("caltech-101", tmp_path)


def test_willow_in_the_official_layout(tmp_path: Path) -> None:
    folder = tmp_path / "WILLOW-ObjectClass" / "Duck"
    rng = np.random.default_rng(0)
    truth = {}
    for k in range(12):
        image(folder / f"{k:03d}.png")
        truth[f"{k:03d}.png"] = rng.uniform(0, 40, (10, 2))
        savemat(folder / f"{k:03d}.mat", {"pts_coord": truth[f"{k:03d}.png"].T})
    for path, points in read_willow_class(folder):
        np.testing.assert_allclose(points, truth[path.name])
    splits = {split: load_pairs("willow", tmp_path, split) for split in ("trn", "val", "test")}  # type: ignore[arg-type]
    used = {s: {p.source.name for p in pairs} | {p.target.name for p in pairs} for s, pairs in splits.items()}
    assert sum(len(names) for names in used.values()) == 12
    assert set.union(*used.values()) == set(truth)  # no image is in two splits
    assert all(p.source != p.target for pairs in splits.values() for p in pairs)
    again = load_pairs("willow", tmp_path, "test")
    assert [p.source for p in again] == [p.source for p in splits["test"]]
    (folder / "003.png").unlink()
    with pytest.raises(ReconError, match=r"003\.png.*missing"):
        load_pairs("willow", tmp_path)


def test_points_outside_of_the_image_are_reported(tmp_path: Path) -> None:
    folder = tmp_path / "Car"
    image(folder / "images" / "a.jpg")
    entry = {"name": "a.jpg", "width": 60, "height": 40, "kps": [[5.0, 5.0]] * 9 + [[500.0, 5.0]]}
    (folder / "keypoints.json").write_text(json.dumps({"images": [entry]}))
    with pytest.raises(ReconError, match=r"a\.jpg: 1 keypoints lie outside.*500"):
        read_willow_class(folder)


def test_images_are_divided_once() -> None:
    parts = [divide(list(range(40)), split) for split in ("trn", "val", "test")]  # type: ignore[arg-type]
    assert [len(part) for part in parts] == [20, 4, 16]
    assert sorted(i for part in parts for i in part) == list(range(40))


def test_unknown_names_and_places(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pf-pascal"):
        load_pairs("pascal", tmp_path)
    with pytest.raises(UsageError, match="card 'spair-71k'"):
        load_pairs("spair-71k", tmp_path / "nowhere")
    with pytest.raises(ReconError, match="list of pairs is missing"):
        load_pairs("spair-71k", tmp_path)


def test_every_benchmark_has_a_card() -> None:
    assert {entry.card for entry in BENCHMARKS.values()} <= set(load_cards())


def test_the_shared_willow_images_are_read(shared_data: Path) -> None:
    pairs = load_pairs("willow", shared_data / "datasets" / "semantic_willow")
    assert {p.category for p in pairs} == {"Car", "Duck"}
    assert all(p.source_points.shape == (10, 2) for p in pairs)
