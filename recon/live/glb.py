"""Meshes and photos as the binary glTF that the browser draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from recon.io.glb import GlbBuilder, linear_of_srgb, textures_of


def drawn_glb(
    vertices: Float32[np.ndarray, "n 3"],
    faces: Int32[np.ndarray, "m 3"],
    *,
    rgb: UInt8[np.ndarray, "n 3"] | Float32[np.ndarray, "n 3"] | None = None,
    uv: Float[np.ndarray, "n 2"] | None = None,
    picture: bytes | None = None,
    opacity: float = 1.0,
    brightness: float = 1.0,
) -> bytes:
    """A mesh that shows its colours as they are, without light (KHR_materials_unlit).

    Args:
        rgb: colours of the vertices: uint8 as in photos, float32 linear.
        uv: texture coordinates, v up. picture: a JPEG.
        opacity: below 1 what is behind shines through.
        brightness: what linear colours of the picture are multiplied by.
    """
    glb = GlbBuilder()
    attributes = {"POSITION": glb.accessor(vertices.astype(np.float32), bounds=True)}
    surface: dict[str, Any] = {"baseColorFactor": [*[brightness] * 3, opacity], "metallicFactor": 0.0}
    textures = None
    if uv is not None and picture is not None:
        flipped = np.column_stack([uv[:, 0], 1 - uv[:, 1]]).astype(np.float32)
        attributes["TEXCOORD_0"] = glb.accessor(flipped)
        surface["baseColorTexture"] = {"index": 0}
        textures = textures_of([glb.view(picture)], "jpeg")
    elif rgb is not None and rgb.dtype == np.float32:
        rgba = np.column_stack([rgb, np.ones(len(rgb))]).astype(np.float32)
        attributes["COLOR_0"] = glb.accessor(rgba)
    elif rgb is not None:
        rgba = np.full((len(rgb), 4), 65535, np.uint16)
        rgba[:, :3] = _LINEAR[rgb]
        attributes["COLOR_0"] = glb.accessor(rgba, normalized=True)
    indices = glb.accessor(faces.astype(np.uint32).ravel())
    return glb.mesh(
        [{"attributes": attributes, "indices": indices, "material": 0}],
        [
            {
                "pbrMetallicRoughness": surface,
                "doubleSided": True,
                "alphaMode": "OPAQUE" if opacity >= 1.0 else "BLEND",
                "extensions": {"KHR_materials_unlit": {}},
            }
        ],
        textures=textures,
    )


_LINEAR = np.rint(linear_of_srgb(np.arange(256) / 255) * 65535).astype(np.uint16)
