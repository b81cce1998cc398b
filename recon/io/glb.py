"""Binary glTF 2.0: a builder of files, their document, and the colours of vertices."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Float64, Int32, UInt8

from recon.core.cameras import PinholeView
from recon.core.frames import offset_to_origin, translation, upright_rotation
from recon.io.files import parse_json

# Entry of ``asset.extras``: the matrix (by rows) that takes the scene back to the frame of the model.
MODEL_FROM_SCENE = "model_from_scene"

# Targets of buffer views (glTF 2.0, section 5.11).
VERTICES, INDICES = 34962, 34963

_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942
_COMPONENTS = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
_KINDS = {2: "VEC2", 3: "VEC3", 4: "VEC4"}


@dataclass
class GlbBuilder:
    """Arrays and pictures of a file, one after the other in its one buffer."""

    _parts: list[bytes] = field(default_factory=list)
    _views: list[dict[str, Any]] = field(default_factory=list)
    _accessors: list[dict[str, Any]] = field(default_factory=list)

    def view(self, data: bytes, target: int | None = None) -> int:
        """Add bytes; return the number of their buffer view."""
        more = {} if target is None else {"target": target}
        start = sum(map(len, self._parts))
        self._views.append({"buffer": 0, "byteOffset": start, "byteLength": len(data), **more})
        self._parts.append(data + b"\0" * (-len(data) % 4))
        return len(self._views) - 1

    def accessor(self, values: npt.NDArray[Any], bounds: bool = False, normalized: bool = False) -> int:
        """Add an array: (n, 2…4) per vertex, or (n,) indices; return the number of its accessor.

        Args:
            bounds: state the least and the largest values, as positions must.
            normalized: whole numbers stand for 0…1.
        """
        flat = values.ndim == 1
        number = self.view(np.ascontiguousarray(values).tobytes(), INDICES if flat else VERTICES)
        accessor = {
            "bufferView": number,
            "componentType": _COMPONENTS[values.dtype.name],
            "count": len(values),
            "type": "SCALAR" if flat else _KINDS[values.shape[1]],
        }
        if bounds:
            some = values if len(values) else np.zeros((1, 3))
            accessor |= {"min": some.min(axis=0).tolist(), "max": some.max(axis=0).tolist()}
        if normalized:
            accessor["normalized"] = True
        self._accessors.append(accessor)
        return len(self._accessors) - 1

    def mesh(
        self,
        primitives: Sequence[Mapping[str, Any]],
        materials: Sequence[Mapping[str, Any]],
        node: Mapping[str, Any] | None = None,
        textures: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Make the file of one mesh in one node.

        Args:
            primitives: attributes and indices by the numbers of their accessors, and the number of their material.
            materials: all of them; extensions are those of the first.
            node: what the node has beside the mesh.
            textures: ``textures``, ``samplers`` and ``images`` of the document.
        """
        binary = b"".join(self._parts)
        unlit = materials[0].get("extensions", {})
        document = {
            "asset": {"version": "2.0", "generator": "recon"},
            **({"extensionsUsed": sorted(unlit)} if unlit else {}),
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0, **(node or {})}],
            "meshes": [{"primitives": list(primitives)}],
            "materials": list(materials),
            **(textures or {}),
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": len(binary)}],
        }
        return pack_glb(document, struct.pack("<II", len(binary), _BINARY_CHUNK) + binary)


def textures_of(images: Sequence[int], kind: str) -> dict[str, Any]:
    """Textures of a document, from 0: pictures ("jpeg" or "png") in buffer views, smoothly enlarged and reduced."""
    return {
        "textures": [{"sampler": 0, "source": number} for number in range(len(images))],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "images": [{"bufferView": image, "mimeType": f"image/{kind}"} for image in images],
    }


def pack_glb(document: Mapping[str, Any], chunks: bytes) -> bytes:
    """Join a document and the chunks behind it to a file (glTF 2.0, section 4.4)."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), _JSON_CHUNK) + text + chunks
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def read_glb(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Take a file apart: its document, and the chunks behind it as they are.

    Raises:
        ValueError: it is not a binary glTF 2.0 file.
    """
    if len(data) < 20 or data[:4] != b"glTF" or struct.unpack_from("<I", data, 4)[0] != 2:
        raise ValueError("not a binary glTF 2.0 file")
    length, kind = struct.unpack_from("<II", data, 12)
    if kind != _JSON_CHUNK:
        raise ValueError("a GLB that does not begin with its JSON")
    return parse_json(data[20 : 20 + length]), data[20 + length :]


class TexturedPart(NamedTuple):
    """A part of a mesh with its own texture coordinates (v up) and the file of its texture."""

    vertices: Float64[np.ndarray, "n 3"]
    faces: Int32[np.ndarray, "m 3"]
    uv: Float64[np.ndarray, "n 2"]
    picture: bytes


def own_textured_parts(data: bytes) -> list[TexturedPart] | None:
    """The parts of a file that ``GlbBuilder`` made of a textured mesh, as its scene shows them; None for all else."""
    try:
        document, chunks = read_glb(data)
        if document["asset"].get("generator") != "recon" or "extensionsRequired" in document:
            return None
        (root,) = document["scenes"][document["scene"]]["nodes"]
        node, matrix = document["nodes"][root], np.eye(4)
        while True:
            if {"rotation", "scale", "skin"} & set(node):
                return None
            matrix = matrix @ _own_matrix(node)
            if "children" not in node:
                break
            (below,) = node["children"]
            node = document["nodes"][below]
        parts = document["meshes"][node["mesh"]]["primitives"]
        return [_textured_part(document, chunks[8:], matrix, part) for part in parts]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def _textured_part(
    document: Mapping[str, Any], binary: bytes, matrix: Float[np.ndarray, "4 4"], part: Mapping[str, Any]
) -> TexturedPart:
    """One of these parts.

    Raises:
        ValueError, KeyError, IndexError, TypeError: it is none.
    """

    def view(number: int) -> bytes:
        place = document["bufferViews"][number]
        return binary[place["byteOffset"] :][: place["byteLength"]]

    def array(number: int, width: int) -> npt.NDArray[Any]:
        accessor = document["accessors"][number]
        kind = next(name for name, code in _COMPONENTS.items() if code == accessor["componentType"])
        return np.frombuffer(view(accessor["bufferView"]), kind).reshape(accessor["count"], width)

    surface = document["materials"][part["material"]]["pbrMetallicRoughness"]
    if "baseColorFactor" in surface or "COLOR_0" in part["attributes"] or part["mode"] != 4:
        raise ValueError("colours beside the texture, or no triangles")
    texture = document["textures"][surface["baseColorTexture"]["index"]]
    xyz = array(part["attributes"]["POSITION"], 3).astype(np.float64)
    uv = array(part["attributes"]["TEXCOORD_0"], 2)
    return TexturedPart(
        xyz @ matrix[:3, :3].T + matrix[:3, 3],
        array(part["indices"], 1).astype(np.int32).reshape(-1, 3),
        np.column_stack([uv[:, 0], 1 - uv[:, 1]]).astype(np.float64),
        view(document["images"][texture["source"]]["bufferView"]),
    )


def model_from_scene(document: Mapping[str, Any]) -> Float64[np.ndarray, "4 4"]:
    """The matrix from a document's scene to the model that it was made of; the identity for foreign files."""
    found = document.get("asset", {}).get("extras", {})
    rows = found.get(MODEL_FROM_SCENE) if isinstance(found, dict) else None
    return np.eye(4) if rows is None else np.array(rows, np.float64).reshape(4, 4)


def linear_of_srgb(srgb: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Turn the colours of photos (0…1) into linear ones, which glTF has at vertices (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def srgb_of_linear(linear: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Turn linear colours (0…1) into those of photos."""
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.power(linear, 1 / 2.4) - 0.055)
    return np.rint(np.clip(srgb, 0.0, 1.0) * 255).astype(np.uint8)


def move_glb(
    data: bytes,
    matrix: Float[np.ndarray, "4 4"],
    extras: dict[str, Any] | None = None,
    *,
    fresh: bool = False,
) -> bytes:
    """A GLB whose scenes hang below a node with this matrix; buffers stay as they are.

    Args:
        extras: facts to keep in the file (``asset.extras``), such as an offset.
        fresh: earlier facts go.

    Raises:
        ValueError: it is not a binary glTF 2.0 file.
    """
    document, rest = read_glb(data)
    nodes: list[dict[str, Any]] = document.setdefault("nodes", [])
    for scene in document.get("scenes", []):
        roots = scene.get("nodes", [])
        whole = np.asarray(matrix, np.float64)
        if len(roots) == 1 and not {"rotation", "scale"} & set(nodes[roots[0]]):
            # Two large translations that cancel would do so in a viewer's single precision.
            whole = whole @ _own_matrix(nodes[roots[0]])
        nodes.append({"name": "world", "matrix": whole.T.ravel().tolist(), "children": roots})
        scene["nodes"] = [len(nodes) - 1]
    if fresh:
        document["asset"].pop("extras", None)
    if extras:
        document["asset"].setdefault("extras", {}).update(extras)
    return pack_glb(document, rest)


def _own_matrix(node: dict[str, Any]) -> Float64[np.ndarray, "4 4"]:
    """Takes the matrix or the translation away from a node."""
    own = translation(np.array(node.pop("translation", (0.0, 0.0, 0.0))))
    if "matrix" in node:
        own = np.array(node.pop("matrix"), np.float64).reshape(4, 4).T
    return own


def upright_glb(data: bytes, views: Sequence[PinholeView]) -> bytes:
    """A GLB of a model, turned upright and brought near the origin by the matrix of a node.

    ``asset.extras`` has the way back (``model_from_scene``), and the offset that was taken away, if there is one.
    Photos that do not tell where up is leave the model as it lies.

    Args:
        views: the photos, in the model's frame.
    """
    offset = offset_to_origin(np.array([view.center for view in views]))
    matrix = np.eye(4)
    with contextlib.suppress(ValueError):
        matrix[:3, :3] = upright_rotation(np.array([view.cam_from_world[:, :3] for view in views]))
    matrix = matrix @ translation(-offset)
    extras: dict[str, Any] = {MODEL_FROM_SCENE: np.linalg.inv(matrix).tolist()}
    if offset.any():
        extras["offset"] = offset.tolist()
    return move_glb(data, matrix, extras)
