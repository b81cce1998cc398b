"""What ``recon import`` does: another program's cameras and points as a COLMAP model, and its matches."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import cv2  # noqa: F401  before pycolmap: see recon.sfm.adapter
import numpy as np
import pycolmap

from recon.cli.exporting import ExportReport, fresh_export
from recon.cli.opening import MARK, load_scene, open_run
from recon.errors import ReconError, UsageError
from recon.exports import bundler, meshroom, nerfstudio, openmvg
from recon.exports.scene import Scene, reconstruction_from_scene
from recon.photos.reading import PhotoError, decode_photo
from recon.sfm.adapter import camera_from_intrinsics, points_to_colmap

_Pairs = dict[tuple[int, int], np.ndarray]


@dataclass(frozen=True)
class _Imported:
    """What a reader found: the scene, matches by rows of views, and where the photos may be."""

    scene: Scene
    pairs: _Pairs = field(default_factory=dict)
    photos: tuple[Path, ...] = ()


_Read = Callable[[Path, Path | None, list[str]], _Imported]
"""From the source, the photo folder that the user gives, and a list that takes notes."""


def run_import(kind: str, source: Path, target: Path, photos: Path | None) -> ExportReport:
    """Read another program's reconstruction and write it for recon and COLMAP.

    Written: ``sparse/0`` (COLMAP, binary), ``text`` (the same as text, its cameras.txt is for
    ``--intrinsics``), ``cameras.json`` (posed pinhole cameras, where the lenses are such), and ``database.db``
    when there are matches.

    Raises:
        UsageError: an unknown format, a source that is not there, a target that holds something else.
        ReconError: the source is damaged or has no posed photo.
    """
    if kind not in _READERS:
        raise UsageError(f"import {kind}: it is one of {', '.join(_READERS)}")
    source = Path(source)
    if not source.exists():
        raise UsageError(f"{source}: there is no such file or folder")
    notes: list[str] = []
    try:
        found = _READERS[kind](source, photos, notes)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ReconError(f"{source}: not what {kind} writes ({error!r})") from error
    scene, pairs = found.scene, found.pairs
    if not scene.views:
        raise ReconError(
            f"{source}: has no photo with a pose and intrinsics; only solved scenes can come over"
        )
    with fresh_export(target) as folder:
        model = reconstruction_from_scene(scene)
        (folder / "sparse" / "0").mkdir(parents=True)
        model.write_binary(folder / "sparse" / "0")
        with_spaces = [view.name for view in scene.views if len(view.name.split()) > 1]
        (folder / "text").mkdir()
        model.write_text(folder / "text")
        if with_spaces:
            notes.append("names with spaces: COLMAP's own reader of its text files cuts them, read sparse/0")
        if all(camera.is_pinhole for camera in scene.cameras):
            _write(folder / "cameras.json", _cameras_json(scene))
        if pairs:
            _write_database(folder / "database.db", scene, pairs)
        folder_of_photos = _photo_folder(found, source, photos)
        mark = {"format": "import", "imported_from": kind, "source": str(source.resolve())}
        if folder_of_photos is not None:
            mark["photos"] = str(folder_of_photos.resolve())
        _write(folder / MARK, mark)
        names = sorted(path.name for path in folder.iterdir())
    what = f"{len(scene.views)} photos, {len(scene.cameras)} cameras, {len(scene.xyz)} points"
    if pairs:
        what += f", matches of {len(pairs)} pairs"
    return ExportReport(what, tuple(target / name for name in names), tuple(notes))


def _photo_folder(found: _Imported, source: Path, photos: Path | None) -> Path | None:
    """The folder in which all photos of the scene are, None if it cannot be found."""
    folder = source.parent if source.is_file() else source
    candidates = [*([photos] if photos is not None else []), *found.photos, folder, folder / "images"]
    return next(
        (place for place in candidates if all((place / view.name).is_file() for view in found.scene.views)),
        None,
    )


def _openmvg(source: Path, photos: Path | None, notes: list[str]) -> _Imported:
    """An ``sfm_data.json`` and, where they can be found, its features and matches."""
    del photos
    path = _one_file(
        source, ("sfm_data.json", "reconstruction/sfm_data.json", "reconstruction_sequential/sfm_data.json",
                 "reconstruction_global/sfm_data.json", "out/sfm_data.json"),
        "openMVG_main_ConvertSfM_DataFormat -i sfm_data.bin -o sfm_data.json makes one of the binary file",
    )  # fmt: skip
    data = _json(path)
    folder = path.parent if source.is_file() else source
    places = [
        folder,
        folder / "matches",
        path.parent,
        path.parent / "matches",
        path.parent.parent / "matches",
    ]
    match_file = next(
        (
            place / name
            for place in places
            for name in (openmvg.MATCHES, "matches.e.txt", "matches.h.txt")
            if (place / name).is_file()
        ),
        None,
    )
    features: dict[int, np.ndarray] = {}
    if match_file is not None:
        for entry in data["views"]:
            view = entry["value"].get("ptr_wrapper", {"data": entry["value"]})["data"]
            name = match_file.parent / f"{Path(str(view['filename'])).stem}.feat"
            if name.is_file():
                features[int(view["id_view"])] = openmvg.from_features(name.read_text(encoding="ascii"))
    scene, row_of = openmvg.from_sfm_data(data, features or None)
    pairs: _Pairs = {}
    if match_file is not None and features:
        for (a, b), rows in openmvg.from_matches(match_file.read_text(encoding="ascii")).items():
            if a not in row_of or b not in row_of:
                continue
            i, j = row_of[a], row_of[b]
            sizes = len(scene.views[i].keypoints), len(scene.views[j].keypoints)
            if len(rows) and (rows.max(axis=0) >= sizes).any():
                raise ReconError(
                    f"{match_file}: pair {a} {b} names features that the .feat files do not have"
                )
            if len(rows):
                pairs[min(i, j), max(i, j)] = rows if i < j else rows[:, ::-1]
        notes.append(f"matches from {match_file}")
    elif match_file is not None:
        notes.append(f"{match_file}: its .feat files are not beside it, so the matches stay behind")
    if not data.get("structure"):
        notes.append("the file has no structure: cameras only")
    root = str(data.get("root_path", ""))
    return _Imported(scene, pairs, (folder / root,) if root else ())  # an absolute root stays itself


def _nerfstudio(source: Path, photos: Path | None, notes: list[str]) -> _Imported:
    del photos
    data = _json(_one_file(source, (nerfstudio.FILE,), ""))
    if "applied_transform" in data:
        notes.append("applied_transform is kept: the world is nerfstudio's, not the one before it")
    return _Imported(nerfstudio.from_transforms(data))


def _meshroom(source: Path, photos: Path | None, notes: list[str]) -> _Imported:
    del photos, notes
    path = _one_file(source, (meshroom.FILE, "sfm.sfm", "sfm.json", "cameras.json"), "")
    scene = meshroom.from_sfm(_json(path))
    # Its paths are absolute, perhaps another computer's: names are what lies below the folder of them all.
    paths = {view.name: PurePosixPath(view.name.replace("\\", "/")) for view in scene.views}
    if paths and all(len(one.parts) > 1 for one in paths.values()):
        common = os.path.commonpath([str(one.parent) for one in paths.values()])
        scene = scene.renamed({name: one.relative_to(common).as_posix() for name, one in paths.items()})
        return _Imported(scene, photos=(path.parent / common,))
    return _Imported(scene)


def _bundler(source: Path, photos: Path | None, notes: list[str]) -> _Imported:
    path = _one_file(source, (bundler.BUNDLE, "bundle/bundle.out", "bundle.rd.out"), "")
    listing = next(
        (
            place / name
            for place in (path.parent, path.parent.parent)
            for name in (bundler.LIST, "bundle.out.list.txt")
            if (place / name).is_file()
        ),
        None,
    )
    if listing is None:
        raise ReconError(f"{path}: its list of photos (list.txt) is not beside it")
    names = [line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    folder = photos or listing.parent
    sizes = []
    for name in names:
        try:
            decoded = decode_photo(folder / name)
        except PhotoError as error:
            raise ReconError(
                f"{folder / name}: {error}; Bundler's files do not say how large photos are: give --photos DIR"
            ) from error
        sizes.append((decoded.width, decoded.height))
    del notes
    return _Imported(bundler.from_bundle(path.read_text(encoding="ascii"), names, sizes), photos=(folder,))


def _colmap(source: Path, photos: Path | None, notes: list[str]) -> _Imported:
    del photos, notes
    run = open_run(source)
    return _Imported(load_scene(run), photos=(run.source,) if run.source else ())


_READERS: dict[str, _Read] = {
    "openmvg": _openmvg,
    "nerfstudio": _nerfstudio,
    "meshroom": _meshroom,
    "bundler": _bundler,
    "colmap": _colmap,
}


def _one_file(source: Path, names: tuple[str, ...], advice: str) -> Path:
    if source.is_file():
        return source
    for name in names:
        if (source / name).is_file():
            return source / name
    raise UsageError(f"{source}: holds no {names[0]}" + (f"; {advice}" if advice else ""))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ReconError(f"{path}: is no text file ({error.reason})") from error
    except OSError as error:
        raise ReconError(f"{path}: cannot be read ({error.strerror})") from error


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _cameras_json(scene: Scene) -> dict[str, Any]:
    """Posed pinhole cameras as the project's own cameras.json (docs/conventions.md)."""
    images = []
    for view in scene.views:
        camera = scene.intrinsics(view)
        K = camera.K
        images.append(
            {
                "name": view.name,
                "width": camera.width,
                "height": camera.height,
                "fx": K[0, 0],
                "fy": K[1, 1],
                "cx": K[0, 2],
                "cy": K[1, 2],
                "R": view.cam_from_world[:, :3].tolist(),
                "t": view.cam_from_world[:, 3].tolist(),
            }
        )
    return {"images": images}


def _write_database(path: Path, scene: Scene, pairs: _Pairs) -> None:
    """Cameras, photos, features and matches as COLMAP's database."""
    with pycolmap.Database.open(path) as database:
        for row, intrinsics in enumerate(scene.cameras):
            camera = camera_from_intrinsics(intrinsics, row + 1)
            database.write_camera(camera, use_camera_id=True)
            rig = pycolmap.Rig(rig_id=row + 1)
            rig.add_ref_sensor(camera.sensor_id)
            database.write_rig(rig, use_rig_id=True)
        for row, view in enumerate(scene.views):
            image = pycolmap.Image(name=view.name, image_id=row + 1, camera_id=view.camera + 1)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=row + 1, rig_id=view.camera + 1)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            database.write_keypoints(row + 1, points_to_colmap(view.keypoints.astype(np.float32)))
        for (a, b), rows in pairs.items():
            matches = np.ascontiguousarray(rows, np.uint32)
            database.write_matches(a + 1, b + 1, matches)
            geometry = pycolmap.TwoViewGeometry()
            geometry.config = int(pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED)
            geometry.inlier_matches = matches
            database.write_two_view_geometry(a + 1, b + 1, geometry)
