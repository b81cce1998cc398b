"""Results that one workspace takes over from another, where both would compute the very same."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

from recon.engine.stage import Stage
from recon.engine.workspace import Workspace
from recon.errors import ReconError
from recon.io.files import INCOMPLETE
from recon.io.manifest import Manifest, StageRecord, read_manifest
from recon.run.kept import link_or_copy


def holds(root: Path, manifest: Manifest | None, stage: str, fingerprint: str) -> bool:
    """True if a workspace has the finished result of a stage with this fingerprint, all its files included."""
    record = manifest.stages.get(stage) if manifest is not None else None
    return (
        record is not None
        and record.state == "done"
        and record.fingerprint == fingerprint
        and all((root / name).exists() for name in record.written)
    )


def is_finished(root: Path, fingerprints: Mapping[str, str]) -> bool:
    """True if a workspace has the results of all these stages."""
    try:
        manifest = read_manifest(root)
    except ReconError:
        return False
    return all(holds(root, manifest, stage, mark) for stage, mark in fingerprints.items())


def adopt(
    root: Path,
    stages: Sequence[Stage],
    fingerprints: Mapping[str, str],
    workspaces: Iterable[Path],
    source: str = "",
    source_fingerprint: str = "",
) -> list[str]:
    """Take over every result that a workspace lacks and a donor has; returns the names of the stages.

    Files are hard links where the file system has them (a workspace never changes a file in place) and copies
    elsewhere. A stage counts as done only when all its files are in place.

    Args:
        root: the workspace, made if it is not there.
        stages: in the order of a run.
        fingerprints: of the run that is going to happen (``recon.engine.runner.stage_fingerprints``).
        workspaces: other workspaces.
        source, source_fingerprint: what the workspace is made from, if it is new.

    Raises:
        ReconError: the workspace cannot be written, or a run works on it.
    """
    offered = []
    for folder in workspaces:
        with contextlib.suppress(ReconError):
            manifest = read_manifest(folder)
            if manifest is not None and folder.resolve() != root.resolve():
                offered.append((folder, manifest))
    taken: list[str] = []
    own = read_manifest(root)
    lacking = [
        stage.name
        for stage in stages
        if stage.name in fingerprints and not holds(root, own, stage.name, fingerprints[stage.name])
    ]
    gifts = {}
    for name in lacking:
        donor = next((d for d in offered if holds(d[0], d[1], name, fingerprints[name])), None)
        if donor is not None:
            gifts[name] = donor
    if not gifts:
        return taken
    with Workspace.open(root) as workspace:
        manifest = workspace.manifest
        if not manifest.source_fingerprint:
            manifest.source, manifest.source_fingerprint = source, source_fingerprint
        for name, (folder, theirs) in gifts.items():
            record = deepcopy(theirs.stages[name])
            manifest.invalidate_readers([name])
            manifest.stages[name] = StageRecord(record.fingerprint, "running", list(record.reads))
            workspace.save()
            workspace.drop_partial(name)
            for written in record.written:
                _take(folder / written, workspace.root / written, workspace.root / INCOMPLETE)
            manifest.stages[name] = record
            workspace.save()
            taken.append(name)
    return taken


def drop_obsolete(root: Path, fingerprints: Mapping[str, str]) -> None:
    """Remove the files of results that a coming run will not keep, so that none of them is taken for the run's own
    should it fail before it replaces them.

    Raises:
        ReconError: as ``adopt``.
    """
    manifest = read_manifest(root)
    if manifest is None:
        return
    obsolete = {
        written
        for name, record in manifest.stages.items()
        if record.state != "done" or record.fingerprint != fingerprints.get(name, record.fingerprint)
        for written in record.written
    }
    if obsolete:
        with Workspace.open(root) as workspace:
            for written in sorted(obsolete):
                _remove(workspace.root / written)


def link_tree(source: Path, target: Path) -> None:
    """Hard links of a file or of all files of a folder, copies where links cannot be made."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=link_or_copy)
    else:
        link_or_copy(source, target)


def _take(source: Path, target: Path, scratch: Path) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    beside = scratch / f"adopted-{os.getpid()}-{target.name}"
    _remove(beside)
    link_tree(source, beside)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove(target)
    os.replace(beside, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
