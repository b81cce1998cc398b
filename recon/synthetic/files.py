"""A rendered scene as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.io.cameras_json import CONVENTION, camera_entry
from recon.synthetic.scene import SyntheticScene


def write_scene(scene: SyntheticScene, folder: Path) -> None:
    """Write a scene: ``images/*.png`` (with the focal length in EXIF), ``cameras.json``,
    ``truth/mesh.ply``, and for each view ``truth/depth/*.npz`` (depth and normals) and ``truth/masks/*.png``
    (white where the surface is seen).

    PNG keeps the pixels as they are in the scene, JPEG losses of its camera included.
    """
    from PIL import Image

    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "truth" / "depth").mkdir(parents=True, exist_ok=True)
    (folder / "truth" / "masks").mkdir(parents=True, exist_ok=True)
    for image, view, depth, normal, mask in zip(
        scene.images, scene.views, scene.depths, scene.normals, scene.masks, strict=True
    ):
        write_photo(folder / "images" / view.name, image, view)
        np.savez_compressed(
            folder / "truth" / "depth" / f"{Path(view.name).stem}.npz", depth=depth, normal=normal
        )
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "truth" / "masks" / view.name)
    write_cameras_and_surface(folder, scene.name, scene.views, scene.mesh)


def write_photo(path: Path, image: UInt8[np.ndarray, "h w 3"], view: PinholeView, **options: Any) -> None:
    """Write a photo with the view's focal length in EXIF; ``options`` are those of Pillow's format."""
    from PIL import Image

    picture = Image.fromarray(image)
    exif = picture.getexif()
    exif[0x010F], exif[0x0110] = "recon", "synthetic pinhole"  # make and model
    # 35 mm equivalent by the width of the frame, as cameras with a 3:2 sensor count it.
    exif.get_ifd(0x8769)[0xA405] = round(36.0 * float(view.K[0, 0]) / view.width)
    picture.save(path, exif=exif, **options)


def write_cameras_and_surface(folder: Path, name: str, views: Sequence[PinholeView], mesh: Mesh) -> None:
    """Write ``cameras.json`` and ``truth/mesh.ply`` of a scene."""
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    entries = [
        camera_entry(view.name, view.K, (view.width, view.height), view.cam_from_world) for view in views
    ]
    document = {"convention": CONVENTION, "world_unit": "metre", "name": name, "images": entries}
    (folder / "cameras.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    write_ply(folder / "truth" / "mesh.ply", mesh)


def write_ply(path: Path, mesh: Mesh) -> None:
    """Write a mesh as binary PLY."""
    from recon.core.open3d import o3d

    out = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices.astype(np.float64)), o3d.utility.Vector3iVector(mesh.faces)
    )
    if mesh.rgb is not None:
        out.vertex_colors = o3d.utility.Vector3dVector(mesh.rgb / 255.0)
    if not o3d.io.write_triangle_mesh(path, out):
        raise OSError(f"{path}: cannot be written")
