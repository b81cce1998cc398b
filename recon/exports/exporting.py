"""Exports of a run: the registry of formats, and the way from a run to files in their place."""

from __future__ import annotations

import tempfile
from pathlib import Path

from recon.exports import bundler, colmap, meshroom, nerfstudio, openmvg, pmvs, points, surfaces
from recon.exports.export import Export, Format
from recon.exports.files import fresh_export
from recon.exports.options import ExportOptions, ExportReport
from recon.exports.source import read_georeference
from recon.run.folder import RunFolder

WRITERS: dict[str, Format] = {
    "colmap": colmap.BINARY,
    "colmap-text": colmap.TEXT,
    "nerfstudio": nerfstudio.FORMAT,
    "openmvg": openmvg.FORMAT,
    "openmvg-lists": pmvs.OPENMVG_LISTS,
    "openmvs": colmap.OPENMVS,
    "bundler": bundler.FORMAT,
    "pmvs": pmvs.PMVS,
    "meshroom": meshroom.FORMAT,
    "ply": points.PLY,
    "las": points.LAS,
    "obj": surfaces.OBJ,
    "glb": surfaces.GLB,
}


def run_export(run: RunFolder, kind: str, target: Path, options: ExportOptions) -> ExportReport:
    """Write one export.

    Args:
        kind: a key of ``WRITERS``.
        target: folder of the export; for formats of one file also a file with their suffix.

    Raises:
        ReconError: the run lacks what the format needs, or a photo cannot be read or the target written.
        UsageError: options that contradict each other, or a target that holds something else.
    """
    format = WRITERS[kind]
    georeference = read_georeference(run) if options.georeferenced else None
    job = Export(run, kind, format, options, georeference, target.resolve())
    if format.single_file and target.suffix.lower() == format.single_file:
        what, files = _write_file(job, target)
    else:
        with fresh_export(target) as folder:
            what = format.write(job, folder)
            job.write_mark(folder)
            files = tuple(target / name for name in sorted(path.name for path in folder.iterdir()))
    return ExportReport(what, files, tuple(job.notes))


def _write_file(job: Export, path: Path) -> tuple[str, tuple[Path, ...]]:
    """Write a format of one file straight to the user's path, what belongs to it (textures) beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as name:
        what = job.format.write(job, Path(name))
        made = sorted(Path(name).iterdir())
        whole = next(one for one in made if one.suffix == job.format.single_file)
        moved = [one.replace(path if one == whole else path.parent / one.name) for one in made]
    return what, tuple(moved)
