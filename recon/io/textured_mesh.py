"""Textured meshes from Wavefront OBJ and binary glTF files.

GLB is read by trimesh, but for recon's own textured meshes: trimesh takes 0.2 CPU s to load. OBJ is not: trimesh 5
misreads indices that count from the end, and drops textures of faces that name no material.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8
from PIL import Image

from recon.core.mesh import Mesh, VertexMesh
from recon.core.resize import resize_rgb
from recon.errors import ReconError, reading
from recon.io.glb import TexturedPart, own_textured_parts, srgb_of_linear

_PICTURES = (".png", ".jpg", ".jpeg")
_OUTSIDE = 1e-3
"""Texture coordinates farther outside of 0…1 repeat a texture."""


def read_textured_mesh(path: Path) -> Mesh:
    """Read a mesh with its texture or vertex colours.

    Args:
        path: an OBJ file (its textures are the ``map_Kd`` of its material library, or the one picture beside
            it), or a GLB file.

    Returns:
        The mesh in the file's own axes and units; vertices at one position are one vertex, so that normals
        are smooth over the seams of the texture. Several textures become one, tile beside tile.

    Raises:
        ReconError: the file cannot be read, has no triangles, or has several textures of which one repeats itself.
    """
    path = Path(path)
    with reading(path):
        if path.suffix.lower() == ".obj":
            return _read_obj(path, path.read_text(encoding="utf-8", errors="replace"))
        if path.suffix.lower() == ".glb":
            return _read_glb(path)
    raise ReconError(f"{path}: textured meshes are read from .obj and .glb files")


def in_one_texture(
    path: Path,
    uv: Float64[np.ndarray, "n 2"],
    which: Int64[np.ndarray, " n"],
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
) -> tuple[Float64[np.ndarray, "n 2"], UInt8[np.ndarray, "h w 3"] | None]:
    """Lay several textures out as tiles of one.

    Args:
        path: named in errors.
        uv: texture coordinates, v up, each in a texture of its own.
        which: the texture of each; -1 for none, which becomes grey.

    Raises:
        ReconError: there are several textures, and one repeats itself.
    """
    if not pictures or (len(pictures) == 1 and (which == 0).all()):
        return uv, pictures[0] if pictures else None
    inside = uv[which >= 0]
    if inside.min() < -_OUTSIDE or inside.max() > 1 + _OUTSIDE:
        if len(pictures) == 1:
            return uv, pictures[0]
        raise ReconError(f"{path}: has several textures, and one repeats itself; bake them into one")
    tiles = [*pictures, np.full((16, 16, 3), 128, np.uint8)] if (which < 0).any() else list(pictures)
    number = np.where(which < 0, len(tiles) - 1, which)
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    texture = np.zeros((rows * height, columns * width, 3), np.uint8)
    row, column = np.divmod(np.arange(len(tiles)), columns)
    for one, y, x in zip(tiles, row * height, column * width, strict=True):
        texture[y : y + one.shape[0], x : x + one.shape[1]] = one
    size = np.array([one.shape[1::-1] for one in tiles], np.float64)[number]
    corner = np.stack([column * width, row * height], axis=1)[number]
    down = np.where(which[:, None] < 0, 0.5, np.column_stack([uv[:, 0], 1 - uv[:, 1]]))
    placed = (corner + down * size) / [columns * width, rows * height]
    return np.column_stack([placed[:, 0], 1 - placed[:, 1]]), texture


def _welded(
    path: Path,
    positions: Float64[np.ndarray, "n 3"],
    faces: Int32[np.ndarray, "m 3"],
    uvs: Float64[np.ndarray, "m 3 2"] | None,
    texture: UInt8[np.ndarray, "h w 3"] | None,
    colors: UInt8[np.ndarray, "n 3"] | None = None,
) -> Mesh:
    """Join vertices at one position and check that a mesh is left."""
    if not len(faces):
        raise ReconError(f"{path}: has no triangles")
    if faces.min() < 0 or faces.max() >= len(positions):
        raise ReconError(f"{path}: has a triangle whose vertices are not in the file")
    if not np.isfinite(positions).all():
        raise ReconError(f"{path}: has a vertex that is not finite")
    unique, first, back = np.unique(
        positions.astype(np.float32), axis=0, return_index=True, return_inverse=True
    )
    faces = np.ascontiguousarray(back.reshape(-1)[faces].astype(np.int32))
    textured = uvs is not None and texture is not None
    return Mesh(
        unique,
        faces,
        None if colors is None else np.ascontiguousarray(colors[first]),
        np.ascontiguousarray(uvs, np.float32) if textured and uvs is not None else None,
        texture if textured else None,
    )


# ---- Wavefront OBJ -------------------------------------------------------------------------------


def _read_obj(path: Path, text: str) -> Mesh:
    positions: list[list[float]] = []
    coordinates: list[list[float]] = []
    corners: list[tuple[int, int]] = []
    library: list[str] = []
    materials: dict[str, int] = {}
    material, used = -1, []
    try:
        for line in text.splitlines():
            words = line.split()
            if not words:
                continue
            if words[0] == "v":
                positions.append([float(word) for word in words[1:4]])
            elif words[0] == "vt":
                coordinates.append([float(word) for word in words[1:3]])
            elif words[0] == "f":
                polygon = [_corner(word, len(positions), len(coordinates)) for word in words[1:]]
                for i in range(1, len(polygon) - 1):
                    corners += [polygon[0], polygon[i], polygon[i + 1]]
                    used.append(material)
            elif words[0] == "usemtl":
                material = materials.setdefault(" ".join(words[1:]), len(materials))
            elif words[0] == "mtllib":
                library.append(line.split(None, 1)[1].strip())
    except (ValueError, IndexError) as error:
        raise ReconError(f"{path}: has a line that is no OBJ ({error})") from error
    table = np.array(corners, np.int64).reshape(-1, 3, 2)
    uvs = None
    if coordinates and len(table) and table[..., 1].min() >= 0:
        if table[..., 1].max() >= len(coordinates):
            raise ReconError(f"{path}: has a texture coordinate that is not in the file")
        uvs = np.array(coordinates, np.float64)[table[..., 1]]
    texture = None
    if uvs is not None:
        uvs, texture = _obj_texture(path, library, uvs, list(materials), np.array(used, np.int64))
    return _welded(
        path, np.array(positions, np.float64).reshape(-1, 3), table[..., 0].astype(np.int32), uvs, texture
    )


def _corner(word: str, positions: int, coordinates: int) -> tuple[int, int]:
    """Position and texture index of ``v``, ``v/vt``, ``v//vn`` or ``v/vt/vn``; negative ones count back."""
    parts = word.split("/")
    v = int(parts[0])
    t = int(parts[1]) if len(parts) > 1 and parts[1] else 0
    return (v - 1 if v > 0 else positions + v), (t - 1 if t > 0 else coordinates + t if t < 0 else -1)


def _obj_texture(
    path: Path,
    libraries: list[str],
    uvs: Float64[np.ndarray, "m 3 2"],
    materials: list[str],
    used: Int64[np.ndarray, " m"],
) -> tuple[Float64[np.ndarray, "m 3 2"], UInt8[np.ndarray, "h w 3"] | None]:
    """The texture of an OBJ, and the coordinates in it.

    Args:
        materials: names of those that faces have. used: material of each face, -1 for none.
    """
    named: dict[str, str] = {}
    for name in libraries:
        library = path.parent / name
        if library.is_file():
            named |= _pictures_of_materials(library.read_text(encoding="utf-8", errors="replace"))
    files = list(dict.fromkeys(named.values()))
    if not files:
        beside = [one for one in sorted(path.parent.iterdir()) if one.suffix.lower() in _PICTURES]
        return uvs, _picture(beside[0]) if len(beside) == 1 else None
    if len(files) == 1:
        return uvs, _picture(path.parent / files[0])
    number = [files.index(named[name]) if name in named else -1 for name in materials]
    which = np.array([*number, -1], np.int64)[used]
    pictures = [_picture(path.parent / name) for name in files]
    placed, texture = in_one_texture(path, uvs.reshape(-1, 2), np.repeat(which, 3), pictures)
    return placed.reshape(-1, 3, 2), texture


def _pictures_of_materials(library: str) -> dict[str, str]:
    """The picture of each material of a library that has one."""
    found, material = {}, ""
    for line in library.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "newmtl":
            material = " ".join(words[1:])
        elif len(words) > 1 and words[0].startswith("map_Kd"):
            found[material] = words[-1]
    return found


def _picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image

    with reading(path), Image.open(path) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")))


# ---- binary glTF 2.0 -----------------------------------------------------------------------------


def _read_glb(path: Path) -> Mesh:
    found = read_mesh_file(path)
    rgb = found.rgb
    if rgb is None and found.texture is None:
        rgb = np.full((len(found.vertices), 3), 255, np.uint8)
    return _welded(
        path,
        found.vertices,
        found.faces,
        None if found.uv is None else found.uv[found.faces],
        found.texture,
        None if found.texture is not None else rgb,
    )


def read_mesh_file(path: Path, texels: int | None = None) -> VertexMesh:
    """Read a GLB or OBJ file, all its parts as one mesh.

    Args:
        texels: larger textures are made smaller as they are read, all together to about so many.

    Raises:
        ReconError: the file cannot be read, has no triangles, or has several textures of which one repeats itself.
    """
    if path.suffix.lower() == ".glb":
        with reading(path):
            parts = own_textured_parts(path.read_bytes())
        if parts is not None and any(len(part.faces) > 0 for part in parts):
            return _joined(path, parts, texels)
    return _read_with_trimesh(path, texels)


def _joined(path: Path, parts: Sequence[TexturedPart], texels: int | None) -> VertexMesh:
    """The parts of a mesh as one; arguments as of ``read_mesh_file``."""
    files = [Image.open(io.BytesIO(part.picture)) for part in parts]
    share = _share_of([file.size for file in files], texels)
    sizes = [len(part.vertices) for part in parts]
    uv, texture = in_one_texture(
        path,
        np.concatenate([part.uv for part in parts]),
        np.repeat(np.arange(len(parts)), sizes),
        [_pixels(file, share) for file in files],
    )
    starts = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
    return VertexMesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]),
        None,
        uv.astype(np.float32),
        texture,
    )


def _share_of(sizes: Sequence[tuple[int, int]], texels: int | None) -> float:
    """What to multiply the sides of pictures by for all together to have so many texels at most."""
    total = sum(width * height for width, height in sizes)
    return 1.0 if texels is None else min(1.0, (texels / max(total, 1)) ** 0.5)


def _read_with_trimesh(path: Path, texels: int | None) -> VertexMesh:
    import trimesh

    try:
        scene = trimesh.load_scene(path, process=False)
        files = _without_pictures(scene)
        parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    except Exception as error:  # a damaged file surfaces as an error of any kind
        raise ReconError(f"{path}: the mesh cannot be read ({type(error).__name__}: {error})") from error
    if not parts:
        raise ReconError(f"{path}: holds no triangles")
    sizes = {id(one): one.size for one in files.values()}
    share = _share_of(list(sizes.values()), texels)
    textures: dict[bytes, int] = {}
    number_of: dict[int, int] = {}
    pictures: list[UInt8[np.ndarray, "_ _ 3"]] = []
    uvs, colors, which = [], [], []
    for part in parts:
        uv, number = np.zeros((len(part.vertices), 2)), -1
        material = getattr(part.visual, "material", None)
        picture = files.get(part.metadata["name"])
        own = getattr(part.visual, "uv", None)
        if picture is not None and own is not None:
            if id(picture) not in number_of:
                pixels = _pixels(picture, share)
                number_of[id(picture)] = textures.setdefault(sha256(pixels.data).digest(), len(textures))
                pictures += [pixels] * (len(textures) - len(pictures))
            number, uv = number_of[id(picture)], np.asarray(own, np.float64)
        uvs.append(uv)
        which.append(np.full(len(uv), number))
        factor = None if number >= 0 else getattr(material, "baseColorFactor", None)
        colors.append(_colors(part, factor, linear=path.suffix.lower() == ".glb"))
    placed, texture = in_one_texture(path, np.concatenate(uvs), np.concatenate(which), pictures)
    rgb = None
    if any(one is not None for one in colors):
        grey = [np.full((len(part.vertices), 3), 128, np.uint8) for part in parts]
        rgb = np.concatenate([other if one is None else one for one, other in zip(colors, grey, strict=True)])
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    return VertexMesh(
        np.concatenate([np.asarray(part.vertices, np.float64) for part in parts]),
        np.concatenate(
            [np.asarray(part.faces, np.int32) + start for part, start in zip(parts, starts, strict=True)]
        ).astype(np.int32),
        rgb,
        None if texture is None else placed.astype(np.float32),
        texture,
    )


def _without_pictures(scene: Any) -> dict[str, Any]:
    """Take the pictures out of a scene, by the names of its meshes: trimesh would copy them with these."""
    names = ("baseColorTexture", "image")
    materials = {
        name: getattr(getattr(one, "visual", None), "material", None) for name, one in scene.geometry.items()
    }
    found = {
        name: next((one for key in names if (one := getattr(material, key, None)) is not None), None)
        for name, material in materials.items()
    }
    for material in materials.values():
        for key in names:
            if getattr(material, key, None) is not None:
                setattr(material, key, None)
    return {name: picture for name, picture in found.items() if picture is not None}


def _pixels(picture: Any, share: float) -> UInt8[np.ndarray, "_ _ 3"]:
    """Pixels of a picture, whose own memory is freed, with its sides made smaller."""
    pixels = np.ascontiguousarray(np.asarray(picture.convert("RGB")))
    picture.close()
    height, width = pixels.shape[:2]
    return (
        pixels
        if share == 1.0
        else resize_rgb(pixels, max(1, int(width * share)), max(1, int(height * share)))
    )


def _colors(part: Any, factor: Any, *, linear: bool) -> UInt8[np.ndarray, "n 3"] | None:
    """Colours of a part's vertices by its own and the material's factor; None where it has neither.

    Args:
        linear: they are, as in glTF (section 3.9.2); recon's colours are gamma-coded.
    """
    own = part.visual.vertex_attributes.get("color") if part.visual.kind == "texture" else None
    if part.visual.kind == "vertex":
        own = part.visual.vertex_colors
    if own is None and factor is None:
        return None
    shade = np.full((len(part.vertices), 3), 255, np.uint8) if own is None else np.asarray(own)[:, :3]
    if factor is not None:
        shade = shade * (np.asarray(factor, np.float64)[:3] / 255)
    return srgb_of_linear(shade / np.float32(255)) if linear else np.asarray(shade, np.uint8)
