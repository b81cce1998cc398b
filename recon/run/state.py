"""Present and outdated results of a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from recon.errors import ReconError, reading
from recon.io.manifest import read_manifest

STAGE_OF = {
    "photos.json": "photos",
    "pairs.json": "pairs",
    "matching.json": "match",
    "two_view.npz": "verify",
    "tracks.npz": "tracks",
    "sparse/0": "map",
    "database.db": "map",
    "dense/depth": "depth",
    "dense/points.ply": "fuse",
    "mesh/mesh.ply": "mesh",
    "mesh/textured.glb": "texture",
    "mesh/textured.obj": "texture",
    "pictures": "report",
    "summary.txt": "report",
    "summary.json": "report",
}
"""Results, and the stage that writes each. Not the report page: a run that stops early leaves one of what it did."""

RESULTS = (
    "sparse",
    "mapping.json",
    "dense/points.ply",
    "mesh",
    "pictures",
    "report.html",
    "summary.json",
    "summary.txt",
    "exports",
    "georeference.json",
    "adjusted",
    "maps",
)
"""What people look at: kept in the folder ``previous`` when it becomes that of an earlier state."""

DERIVED = {
    "map": ("georeference.json", "adjusted", "exports", "maps"),
    "depth": ("maps",),
    "fuse": ("exports",),
    "mesh": ("exports", "maps"),
    "texture": ("exports",),
}
"""What commands make of the results of a stage."""

_WHY = {
    "stale": "the photos or settings have changed since",
    "failed": "it failed when it was run again",
    "interrupted": "it was stopped when it was run again",
    "running": "it was begun again and has not ended",
}


def check_unchanged(root: Path, *names: str) -> None:
    """Refuse files of a run that are not those that its stages wrote, another run's for example.

    Args:
        root: folder of a run; without a manifest everything is taken as it is.
        names: files, or folders of them, below it.

    Raises:
        ReconError: one of them has changed since its stage wrote it, or the manifest is damaged.
    """
    manifest = read_manifest(root)
    if manifest is None:
        return
    for name in names:
        with reading(root / name):
            for stage, changed in manifest.foreign(root, [name]):
                raise ReconError(
                    f"{root / changed}: is not the file that stage {stage} wrote (changed since, or of another run); "
                    f"run again with --restart-from {stage}"
                )


def old_results(root: Path, names: Iterable[str] = tuple(STAGE_OF)) -> list[str]:
    """Name the results that are there but whose stage is not done, or did not write them: one sentence each.

    A folder without a manifest, and a result of no stage in the manifest, are taken as they are.

    Args:
        root: folder of a run.
        names: keys of ``STAGE_OF``.

    Raises:
        ReconError: the manifest is damaged.
    """
    manifest = read_manifest(root) if root.is_dir() else None
    if manifest is None:
        return []
    found = []
    for name in names:
        record = manifest.stages.get(STAGE_OF[name])
        if record is not None and record.state != "done" and (root / name).exists():
            why = _WHY.get(record.state, f"its state is {record.state}")
            found.append(f"{root / name} is of an earlier state: stage {STAGE_OF[name]} is not done, {why}")
    with reading(root):
        for stage, name in manifest.foreign(root, names):
            found.append(
                f"{root / name} is not the file that stage {stage} wrote: changed since, or of another run"
            )
    return found


def refuse_old(root: Path, *names: str) -> None:
    """Refuse results of an earlier state.

    Args:
        root: folder of a run.
        names: keys of ``STAGE_OF``; all where none is named.

    Raises:
        ReconError: one of them is there, but its stage is not done or did not write it; the message says how to bring
            it up to date.
    """
    found = old_results(root, names or tuple(STAGE_OF))
    if found:
        raise ReconError(
            f"{found[0]}. Run 'recon reconstruct' with --out {root} again to bring it up to date"
        )
