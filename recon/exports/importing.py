"""Another program's cameras and points as a COLMAP model, with its matches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recon.errors import ReconError, UsageError, reading
from recon.exports import bundler, meshroom, nerfstudio, openmvg
from recon.exports.colmap import write_database
from recon.exports.files import MARK, Imported, fresh_export, write_json
from recon.exports.options import ExportReport
from recon.exports.scene import reconstruction_from_scene
from recon.exports.source import load_scene, open_run, photo_folder
from recon.run.state import refuse_old

Read = Callable[[Path, "Path | None", list[str]], Imported]
"""From the source, the photo folder that the user gives, and a list that takes notes."""


def _read_colmap(source: Path, photos: Path | None, notes: list[str]) -> Imported:
    del photos, notes
    refuse_old(source, "sparse/0")
    run = open_run(source)
    folder = photo_folder(run)
    return Imported(load_scene(run), photos=(folder,) if folder else ())


READERS: dict[str, Read] = {
    "openmvg": openmvg.read,
    "nerfstudio": nerfstudio.read,
    "meshroom": meshroom.read,
    "bundler": bundler.read,
    "colmap": _read_colmap,
}


def run_import(kind: str, source: Path, target: Path, photos: Path | None) -> ExportReport:
    """Read another program's reconstruction and write it for recon and COLMAP.

    Written: ``sparse/0`` (COLMAP, binary), ``text`` (the same as text, its cameras.txt is for
    ``--intrinsics``), ``cameras.json`` (posed pinhole cameras, where the lenses are such), and ``database.db``
    when there are matches.

    Raises:
        UsageError: an unknown format, a source that is not there, a target that holds something else.
        ReconError: the source is damaged or has no posed photo.
    """

    if kind not in READERS:
        raise UsageError(f"import {kind}: it is one of {', '.join(READERS)}")
    if not source.exists():
        raise UsageError(f"{source}: there is no such file or folder")
    notes: list[str] = []
    with reading(source, f"it is not what {kind} writes"):
        found = READERS[kind](source, photos, notes)
        if not found.scene.views:
            raise ReconError(
                f"{source}: has no photo with a pose and intrinsics; only solved scenes can come over"
            )
        model = reconstruction_from_scene(found.scene)
    mark = {"format": "import", "imported_from": kind, "source": str(source.resolve())}
    folder_of_photos = _photo_folder(found, source, photos)
    if folder_of_photos is not None:
        mark["photos"] = str(folder_of_photos.resolve())
    with fresh_export(target) as folder:
        _write(folder, found, model)
        write_json(folder / MARK, mark)
        names = sorted(path.name for path in folder.iterdir())
    if any(len(view.name.split()) > 1 for view in found.scene.views):
        notes.append("names with spaces: COLMAP's own reader of its text files cuts them, read sparse/0")
    what = found.scene.in_words()
    if found.pairs:
        what += f", matches of {len(found.pairs)} pairs"
    return ExportReport(what, tuple(target / name for name in names), tuple(notes))


def _write(folder: Path, found: Imported, model: Any) -> None:
    scene = found.scene
    (folder / "sparse" / "0").mkdir(parents=True)
    model.write_binary(folder / "sparse" / "0")
    (folder / "text").mkdir()
    model.write_text(folder / "text")
    if all(camera.is_pinhole for camera in scene.cameras):
        write_json(folder / "cameras.json", scene.to_cameras_json())
    if found.pairs:
        write_database(folder / "database.db", scene, found.pairs)


def _photo_folder(found: Imported, source: Path, photos: Path | None) -> Path | None:
    """The folder in which all photos of the scene are, None if it cannot be found."""
    folder = source.parent if source.is_file() else source
    candidates = [*([photos] if photos is not None else []), *found.photos, folder, folder / "images"]
    return next(
        (place for place in candidates if all((place / view.name).is_file() for view in found.scene.views)),
        None,
    )
