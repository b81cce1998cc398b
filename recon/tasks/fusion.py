"""The points that a view owns, as a task on the workspace."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from recon.core.memory import Latest, release
from recon.core.mesh import FusedCloud
from recon.dense.fusion import FusionMaps, FusionRules, join_clouds
from recon.run.dense_scene import DenseScene
from recon.run.folder import RunFolder

SEEING = "seeing.json"
"""The views that may see the same as each view, beside the points."""

_open = Latest()


@dataclass(frozen=True)
class _Fusion:
    """Opened maps, the views that may see the same, and what gives the memory of the maps back."""

    maps: FusionMaps
    seeing: Sequence[Sequence[int]]
    release: Callable[[], None]


@dataclass(frozen=True)
class FuseView:
    """Writes the points that a view owns, and tells how many they are.

    Attributes:
        root: the workspace.
        folder: where the points go, and the views that may see the same as each view are noted.
        rules: when views agree.
        files: with the maps of all views; none where they are in the memory of this process.
        token: of this run of the stage.
    """

    root: Path
    folder: Path
    rules: FusionRules
    files: tuple[str, ...]
    token: str

    def __call__(self, index: int) -> int:
        fusion = _open.get(self, self._opened)
        cloud = fusion.maps.points(index, fusion.seeing[index], self.rules)
        self._write(index, cloud)
        fusion.release()
        return len(cloud)

    def open(
        self, maps: FusionMaps, seeing: Sequence[Sequence[int]], release_maps: Callable[[], None]
    ) -> None:
        """Use maps that are at hand, in this process."""
        _open.get(self, lambda: _Fusion(maps, seeing, release_maps))

    def _opened(self) -> _Fusion:
        views = DenseScene.of_depth_maps(RunFolder(self.root)).near_views()
        length = FusionMaps.pixels(views)
        kinds = zip(self.files, FusionMaps.KINDS, strict=True)
        arrays = [np.memmap(path, kind, "r", shape=(length, *shape)) for path, (shape, kind) in kinds]
        seeing = json.loads((self.folder / SEEING).read_text(encoding="utf-8"))
        return _Fusion(
            FusionMaps(views, [array.view(np.ndarray) for array in arrays]), seeing, lambda: release(arrays)
        )

    def read(self, index: int) -> FusedCloud:
        """The points that a view owns."""
        with np.load(self.folder / f"{index}.npz") as data:
            return FusedCloud(**{one.name: data[one.name] for one in fields(FusedCloud)})

    def lost(self, index: int) -> int:
        """A view that ended its worker each time makes no points."""
        self._write(index, join_clouds([]))
        return 0

    def _write(self, index: int, cloud: FusedCloud) -> None:
        arrays = {one.name: getattr(cloud, one.name) for one in fields(FusedCloud)}
        files = RunFolder(self.root).files
        with files.write_into(self.folder, f"{index}.npz") as path, path.open("wb") as out:
            np.savez(out, **arrays)

    def close(self) -> None:
        """Free what tasks of this process hold."""
        _open.clear()
