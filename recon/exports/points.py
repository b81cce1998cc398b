"""Exports of points: PLY and LAS."""

from __future__ import annotations

import datetime
from pathlib import Path

from recon.exports.clouds import to_las, to_ply
from recon.exports.export import Export, Format


def _write_ply(job: Export, folder: Path) -> str:
    cloud = job.cloud()
    (folder / "points.ply").write_bytes(to_ply(cloud, job.remarks(), job.sigma(cloud)))
    return f"{len(cloud)} points"


def _write_las(job: Export, folder: Path) -> str:
    cloud = job.cloud()
    epsg = job.georeference.crs.epsg if job.georeference is not None else None
    if job.georeference is None:
        job.notes.append("without --georeferenced: coordinates are those of the run, no reference system")
    data = to_las(cloud, job.offset, epsg, created=datetime.date.today())
    (folder / "points.las").write_bytes(data)
    return f"{len(cloud)} points"


PLY = Format(_write_ply, single_file=".ply")
LAS = Format(_write_las, single_file=".las")
