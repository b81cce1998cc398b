"""PMVS's folder (``visualize/``, ``txt/``, ``models/``, options, ``vis.dat``, ``bundle.rd.out``), and OpenMVG's old
``lists.txt``.

Sources: Y. Furukawa's documentation of PMVS-2, "Input data"; OpenMVG's documentation of ``lists.txt`` (before 0.8).
Pixels are recon's in both: PMVS interpolates between whole numbers.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from recon.core.cameras import Intrinsics
from recon.errors import UsageError
from recon.exports import bundler
from recon.exports.export import Export, Format
from recon.exports.scene import Scene, SceneView, centred_pinhole
from recon.io.pictures import encode_picture, read_bgr

LISTS = "lists.txt"

OPTIONS: dict[str, str] = {
    "level": "1",
    "csize": "2",
    "threshold": "0.7",
    "wsize": "7",
    "minImageNum": "3",
    "CPU": "4",
    "setEdge": "0",
    "useBound": "0",
    "useVisData": "1",
    "sequence": "-1",
    "maxAngle": "10",
    "quad": "2.0",
}
"""PMVS-2's documented defaults, with the photos that ``vis.dat`` names for each."""


def _bent(camera: Intrinsics) -> str | None:
    """Parts of a camera that PMVS cannot hold: it knows projection matrices and the bundle file beside them."""
    if not camera.is_pinhole:
        return f"camera model {camera.model}"
    return bundler.unrepresentable(camera)


def projection(scene: Scene, view: SceneView) -> Float64[np.ndarray, "3 4"]:
    """From the world to pixels, homogeneous."""
    return scene.intrinsics(view).K @ view.cam_from_world


def visibility(scene: Scene) -> str:
    """The text of ``vis.dat``: for each photo those that share points with it, most first."""
    count = len(scene.views)
    shared = np.zeros((count, count), np.int64)
    for track in scene.tracks():
        seen = np.unique(track[:, 0])
        shared[np.ix_(seen, seen)] += 1
    np.fill_diagonal(shared, 0)
    lines = ["VISDATA", str(count)]
    for index, row in enumerate(shared):
        others = [int(other) for other in np.argsort(-row, kind="stable") if row[other] > 0]
        lines.append(" ".join(map(str, (index, len(others), *others))))
    return "\n".join(lines) + "\n"


def to_lists(scene: Scene) -> str:
    """The text of ``lists.txt``: name, size and calibration of each photo, row by row.

    Raises:
        ValueError: a camera is no pinhole.
    """
    lines = []
    for view in scene.views:
        camera = scene.intrinsics(view)
        if not camera.is_pinhole:
            raise ValueError(f"{LISTS} does not know camera model {camera.model}")
        numbers = (f"{value:.17g}" for value in camera.K.ravel())
        lines.append(";".join((view.name, str(camera.width), str(camera.height), *numbers)))
    return "\n".join(lines) + "\n"


def _write(job: Export, folder: Path) -> str:
    """Write PMVS's folder: photos by number, undistorted, as JPEG."""
    if not job.options.images:
        raise UsageError("pmvs looks for photos in its own folder: leave out --no-images")
    scene = job.prepared(folder)
    for name in ("visualize", "txt", "models"):
        (folder / name).mkdir()
    numbered = []
    for index, view in enumerate(scene.views):
        picture = read_bgr(folder / "images" / view.name)
        assert picture is not None  # written just before
        name = f"visualize/{index:08d}.jpg"
        (folder / name).write_bytes(encode_picture(np.ascontiguousarray(picture[..., ::-1]), "jpg"))
        rows = "\n".join(" ".join(f"{value:.17g}" for value in row) for row in projection(scene, view))
        (folder / "txt" / f"{index:08d}.txt").write_text(f"CONTOUR\n{rows}\n", encoding="ascii")
        numbered.append(replace(view, name=name))
    new_names = {view.name: new.name for view, new in zip(scene.views, numbered, strict=True)}
    job.names = {old: new_names[now] for old, now in job.names.items()}
    shutil.rmtree(folder / "images")
    scene = replace(scene, views=tuple(numbered))
    lines = [f"{key} {value}" for key, value in OPTIONS.items()]
    lines += [f"timages -1 0 {len(scene.views)}", "oimages 0"]
    (folder / "pmvs_options.txt").write_text("\n".join(lines) + "\n", encoding="ascii")
    (folder / "vis.dat").write_text(visibility(scene), encoding="ascii")
    (folder / "bundle.rd.out").write_text(bundler.to_bundle(scene), encoding="ascii")
    (folder / bundler.LIST).write_text(bundler.to_list(scene), encoding="utf-8")
    return scene.in_words()


def _write_lists(job: Export, folder: Path) -> str:
    """Write ``lists.txt`` and the photos that it names."""
    scene = job.with_folder(job.prepared(folder))
    (folder / LISTS).write_text(to_lists(scene), encoding="utf-8")
    return scene.in_words()


PMVS = Format(_write, _bent, centred_pinhole)
OPENMVG_LISTS = Format(
    _write_lists, lambda camera: None if camera.is_pinhole else f"camera model {camera.model}"
)
