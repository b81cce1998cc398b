"""COLMAP's own model, binary and text, with photos as they are or undistorted for OpenMVS; and its database."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from recon.core.colmap import pycolmap, write_camera, write_image
from recon.errors import ReconError, UsageError
from recon.exports.export import Export, Format
from recon.exports.files import Pairs
from recon.exports.scene import Scene, reconstruction_from_scene
from recon.run.colmap_database import verified_rows_from_database


def _write_binary(job: Export, folder: Path) -> str:
    scene = job.prepared(folder)
    (folder / "sparse" / "0").mkdir(parents=True)
    reconstruction_from_scene(scene).write_binary(folder / "sparse" / "0")
    return scene.in_words()


def _write_text(job: Export, folder: Path) -> str:
    scene = job.prepared(folder)
    (folder / "sparse" / "0").mkdir(parents=True)
    reconstruction_from_scene(scene).write_text(folder / "sparse" / "0")
    return scene.in_words()


def _write_undistorted(job: Export, folder: Path) -> str:
    """Undistorted photos and a pinhole model, by COLMAP itself."""
    if not job.options.images:
        raise UsageError("openmvs is made of undistorted photos: leave out --no-images")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as name:
        raw = Path(name)
        scene = job.prepared(raw)
        (raw / "model").mkdir()
        reconstruction_from_scene(scene).write_binary(raw / "model")
        pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value
        pycolmap.undistort_images(folder, raw / "model", raw / "images")
        if (raw / "masks").is_dir():
            job.notes.append("masks are not carried over: OpenMVS has them in a form of its own")
    sparse = folder / "sparse"
    if not any(sparse.glob("cameras.*")):
        raise ReconError(f"{sparse}: COLMAP wrote no undistorted model")
    pycolmap.Reconstruction(sparse).write_text(sparse)  # InterfaceCOLMAP before OpenMVS 2 reads nothing else
    return f"{scene.in_words()}; next: InterfaceCOLMAP -i DIR -o DIR/scene.mvs --image-folder DIR/images"


BINARY = Format(_write_binary, masks="colmap")
TEXT = Format(_write_text, masks="colmap", one_word_names=True)
OPENMVS = Format(_write_undistorted, masks="colmap", one_word_names=True)


def database_pairs(path: Path, scene: Scene, names: dict[str, str]) -> Pairs:
    """Read the verified matches of a database; nothing if it is not there or does not fit the model.

    Args:
        names: what the photos of the database are called in the scene, where that differs.
    """
    if not path.is_file():
        return {}
    counts, verified = verified_rows_from_database(path)
    row = {view.name: index for index, view in enumerate(scene.views)}
    rows = {name: row[names.get(name, name)] for name in counts if names.get(name, name) in row}
    if any(counts[name] != len(scene.views[index].keypoints) for name, index in rows.items()):
        return {}
    found: Pairs = {}
    for (a, b), matches in verified.items():
        if a in rows and b in rows:
            in_order = rows[a] < rows[b]
            found[min(rows[a], rows[b]), max(rows[a], rows[b])] = matches.astype(np.int64)[
                :, :: 1 if in_order else -1
            ]
    return found


def write_database(path: Path, scene: Scene, pairs: Pairs) -> None:
    """Write cameras, photos, features and matches as COLMAP's database."""
    with pycolmap.Database.open(path) as database:
        for row, intrinsics in enumerate(scene.cameras):
            write_camera(database, intrinsics, row + 1)
        for row, view in enumerate(scene.views):
            write_image(database, view.name, row + 1, view.camera + 1, view.keypoints)
        for (a, b), rows in pairs.items():
            matches = np.ascontiguousarray(rows, np.uint32)
            database.write_matches(a + 1, b + 1, matches)
            geometry = pycolmap.TwoViewGeometry()
            geometry.config = int(pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED)
            geometry.inlier_matches = matches
            database.write_two_view_geometry(a + 1, b + 1, geometry)
