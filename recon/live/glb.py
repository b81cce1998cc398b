"""Meshes and photos as the binary glTF that the browser draws."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from recon.surface.io import glb_container


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
    parts: list[bytes] = []
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []

    def view(data: bytes, target: int | None = None) -> int:
        more = {} if target is None else {"target": target}
        views.append({"buffer": 0, "byteOffset": sum(map(len, parts)), "byteLength": len(data), **more})
        parts.append(data + b"\0" * (-len(data) % 4))
        return len(views) - 1

    def accessor(data: np.ndarray, kind: str, component: int, target: int = 34962, **more: Any) -> int:
        count = data.size if kind == "SCALAR" else len(data)
        number = view(np.ascontiguousarray(data).tobytes(), target)
        accessors.append(
            {"bufferView": number, "componentType": component, "count": count, "type": kind, **more}
        )
        return len(accessors) - 1

    low, high = vertices.min(axis=0).tolist(), vertices.max(axis=0).tolist()
    attributes = {"POSITION": accessor(vertices.astype("<f4"), "VEC3", 5126, min=low, max=high)}
    material: dict[str, Any] = {"baseColorFactor": [*[brightness] * 3, opacity], "metallicFactor": 0.0}
    document: dict[str, Any] = {}
    if uv is not None and picture is not None:
        flipped = np.column_stack([uv[:, 0], 1 - uv[:, 1]]).astype("<f4")
        attributes["TEXCOORD_0"] = accessor(flipped, "VEC2", 5126)
        material["baseColorTexture"] = {"index": 0}
        document["images"] = [{"bufferView": view(picture), "mimeType": "image/jpeg"}]
        document["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
        document["textures"] = [{"sampler": 0, "source": 0}]
    elif rgb is not None and rgb.dtype == np.float32:
        rgba = np.column_stack([rgb, np.ones(len(rgb))]).astype("<f4")
        attributes["COLOR_0"] = accessor(rgba, "VEC4", 5126)
    elif rgb is not None:
        rgba = np.full((len(rgb), 4), 65535, "<u2")
        rgba[:, :3] = _LINEAR[rgb]
        attributes["COLOR_0"] = accessor(rgba, "VEC4", 5123, normalized=True)
    indices = accessor(faces.astype("<u4").ravel(), "SCALAR", 5125, 34963)
    binary = b"".join(parts)
    document |= {
        "asset": {"version": "2.0", "generator": "recon"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [
            {
                "pbrMetallicRoughness": material,
                "doubleSided": True,
                "alphaMode": "OPAQUE" if opacity >= 1.0 else "BLEND",
                "extensions": {"KHR_materials_unlit": {}},
            }
        ],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    return glb_container(document, binary)


def jpeg_bytes(rgb: UInt8[np.ndarray, "h w 3"], quality: int = 90) -> bytes:
    """A picture as JPEG with full colour resolution."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), options)
    if not done:
        raise ValueError(f"a picture of {rgb.shape[1]} x {rgb.shape[0]} pixels cannot be encoded")
    return data.tobytes()


def _linear_table() -> np.ndarray:
    """glTF's colours of vertices are linear, those of photos sRGB (IEC 61966-2-1)."""
    srgb = np.arange(256) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.rint(linear * 65535).astype(np.uint16)


_LINEAR = _linear_table()
