"""The embedded demo scene: a façade rendered on the spot, and the judgement of what was made of its
photos."""

from __future__ import annotations

from pathlib import Path

from recon.datasets.synthetic import make_scene, write_scene


def make_demo(folder: Path, seed: int = 0) -> Path:
    """Render the demo scene into a folder (see ``write_scene``) and return the folder with its photos.

    A scene that is already there is left as it is.
    """
    folder = Path(folder)
    if not (folder / "truth" / "mesh.ply").is_file():
        write_scene(make_scene("demo", seed=seed), folder)
    return folder / "images"
