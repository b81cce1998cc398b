"""Rendered scenes on disk, each made once: a cache that is keyed by what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock


@dataclass(frozen=True)
class SceneFolder:
    """Where the photos and the truth of a rendered scene are. Tests read it and write elsewhere."""

    folder: Path

    @property
    def photos(self) -> Path:
        return self.folder / "images"

    @property
    def cameras(self) -> Path:
        return self.folder / "cameras.json"

    @property
    def truth_mesh(self) -> Path:
        return self.folder / "truth" / "mesh.ply"


@dataclass(frozen=True)
class Rendered:
    """The cache, in a folder that all workers of a test run share."""

    root: Path

    def __call__(
        self, preset: str, size: tuple[int, int], seed: int = 0, coarseness: float = 1.0
    ) -> SceneFolder:
        """Return the scene of these arguments (see ``make_scene``), rendered by whoever asks first."""
        from recon.synthetic.files import write_scene
        from recon.synthetic.presets import make_scene

        folder = self.root / f"{preset}-{size[0]}x{size[1]}-seed{seed}-coarse{coarseness:g}"
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not (folder / "truth" / "mesh.ply").is_file():  # written last
                write_scene(make_scene(preset, size, seed, coarseness), folder)
        return SceneFolder(folder)
