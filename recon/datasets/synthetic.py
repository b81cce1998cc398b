"""Synthetic scenes with exact truth: meshes made on the spot, rendered by ray casting through a camera
model."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from recon.datasets.paths import arc_path, grid_path, look_at, pinhole_views, zoom_path
from recon.datasets.rendering import (
    Albedo,
    Lighting,
    MeshData,
    SurfaceSamples,
    bake_lighting,
    depth_and_normals,
    ray_scene,
    render_radiance,
    render_vertex_colors,
    vertex_normals,
)
from recon.datasets.shapes import (
    facade_albedo,
    facade_height,
    grid_faces,
    height_field_mesh,
    knot_mesh,
    mesh_on_ground,
    object_mesh,
    plainer,
    rock_albedo,
    rock_height,
    solid_albedo,
    superellipsoid_mesh,
    tiled,
)
from recon.datasets.types import GroundTruth
from recon.errors import ReconError, UsageError
from recon.photos.types import PinholeView

__all__ = [
    "BENCHMARK_SCENES",
    "CONVENTION",
    "PRESETS",
    "Difficulty",
    "Sensor",
    "SyntheticScene",
    "arc_path",
    "difficulties",
    "grid_faces",
    "grid_path",
    "knot_mesh",
    "look_at",
    "make_benchmark_scene",
    "make_scene",
    "object_mesh",
    "photograph",
    "pinhole_views",
    "render_benchmark_scene",
    "render_scene",
    "render_truth",
    "superellipsoid_mesh",
    "write_ply",
    "write_scene",
    "zoom_path",
]

CONVENTION = (
    "Pinhole, no distortion. World-to-camera: x_cam = R @ X_world + t (R 3x3 row-major, det +1). Camera "
    "axes: +x right, +y down, +z forward. Pixel: u = fx*x/z + cx, v = fy*y/z + cy, with OpenCV pixel "
    "coordinates (integer = pixel CENTRE, top-left pixel centre is (0,0)). For COLMAP (top-left corner "
    "origin) add 0.5 to cx, cy. Camera centre C = -R^T t. Depth maps are z-depth along the optical axis in "
    "world units."
)


@dataclass(frozen=True)
class Sensor:
    """What a camera does to the light, in this order: lens blur, exposure, noise, gamma, 8 bits, JPEG.

    Attributes:
        blur: standard deviation of the lens blur in pixels.
        exposure_spread: each photo's exposure is drawn from 2 ** ±exposure_spread (in stops).
        full_well: electrons at white; shot noise is Poisson of the signal in electrons.
        read_noise: standard deviation in electrons.
        jpeg_quality: 0 leaves JPEG out.
    """

    blur: float = 0.6
    exposure_spread: float = 0.2
    full_well: float = 8000.0
    read_noise: float = 8.0
    jpeg_quality: int = 93


@dataclass(frozen=True)
class SyntheticScene:
    """Photos of a known surface from known cameras.

    Attributes:
        name: name of the scene.
        images: (h, w, 3) uint8 RGB per view.
        views: cameras; names are the photos' file names.
        depths: exact z-depth per view, (h, w) float32, 0 where the surface is not met.
        normals: exact unit normals in camera coordinates per view, (h, w, 3) float32.
        masks: (h, w) bool per view, True where the surface is met.
        mesh: the surface, with colours at its vertices (reflectance, gamma-coded).
    """

    name: str
    images: tuple[UInt8[np.ndarray, "h w 3"], ...]
    views: tuple[PinholeView, ...]
    depths: tuple[Float32[np.ndarray, "h w"], ...]
    normals: tuple[Float32[np.ndarray, "h w 3"], ...]
    masks: tuple[Bool[np.ndarray, "h w"], ...]
    mesh: MeshData


# ---- photographs ---------------------------------------------------------------------------------


def photograph(
    radiance: Float32[np.ndarray, "h w 3"], sensor: Sensor, exposure: float, seed: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Turn linear radiance into a photo: blur, exposure, shot and read noise, gamma 2.2, 8 bits, JPEG.

    Args:
        radiance: (h, w, 3) linear, 1 is white at exposure 1.
        sensor: the camera.
        exposure: factor on the light.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    light: Any = radiance * np.float32(exposure)
    if sensor.blur > 0:
        light = cv2.GaussianBlur(light, (0, 0), sensor.blur, borderType=cv2.BORDER_REPLICATE)
    if sensor.full_well > 0:
        electrons = np.maximum(light, 0) * sensor.full_well
        # Thousands of electrons: the normal distribution stands in for Poisson's, with the same variance.
        deviation = np.sqrt(electrons + sensor.read_noise**2)
        noise = rng.standard_normal(light.shape, dtype=np.float32)
        light = (electrons + deviation * noise) / np.float32(sensor.full_well)
    coded = np.clip(light, 0, 1) ** np.float32(1 / 2.2)
    rgb = np.rint(coded * 255).astype(np.uint8)
    if sensor.jpeg_quality > 0:
        done, data = cv2.imencode(
            ".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, sensor.jpeg_quality]
        )
        assert done
        rgb = np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1])
    return rgb


def render_scene(
    name: str,
    mesh: MeshData,
    albedo: Albedo,
    views: Sequence[PinholeView],
    lighting: Lighting | None = None,
    sensor: Sensor | None = None,
    samples: int = 2,
    seed: int = 0,
    exposures: Sequence[float] | None = None,
) -> SyntheticScene:
    """Photograph a mesh from all views.

    Args:
        name: name of the scene.
        mesh: the surface.
        albedo: its reflectance.
        views: the cameras.
        lighting, sensor: light and camera; the defaults are diffuse light and a good camera.
        samples: rays per pixel and axis.
        seed: of exposure and noise.
        exposures: factor on the light of each photo; None draws them as the sensor says.
    """
    lighting = lighting or Lighting()
    sensor = sensor or Sensor()
    rng = np.random.default_rng(seed)
    scene = ray_scene(mesh)
    baked = bake_lighting(mesh, lighting, seed)
    images, depths, normals = [], [], []
    for index, view in enumerate(views):
        radiance = render_radiance(mesh, view, albedo, lighting, baked, samples, scene=scene)
        drawn = 2.0 ** float(rng.uniform(-sensor.exposure_spread, sensor.exposure_spread))
        exposure = 1.15 * (drawn if exposures is None else exposures[index])
        images.append(photograph(radiance, sensor, exposure, seed * 1000 + index))
        depth, normal = depth_and_normals(mesh, view, scene)
        depths.append(depth)
        normals.append(normal)
    at_vertices = vertex_albedo(mesh, albedo, 0.01)
    colors = np.rint(np.clip(at_vertices, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)
    return SyntheticScene(
        name,
        tuple(images),
        tuple(views),
        tuple(depths),
        tuple(normals),
        tuple(depth > 0 for depth in depths),
        replace(mesh, colors=colors if mesh.colors is None else mesh.colors),
    )


def vertex_albedo(mesh: MeshData, albedo: Albedo, footprint: float) -> Float32[np.ndarray, "n 3"]:
    """Compute the reflectance at the vertices, as if sampled so far apart (world units)."""
    face = np.zeros(len(mesh.vertices), np.int32)
    weights = np.zeros((len(mesh.vertices), 3), np.float32)
    corners = mesh.faces.reshape(-1)
    # Each vertex is looked up on one of its faces, the last in the file.
    face[corners] = np.arange(len(corners)) // 3
    weights[np.arange(len(face)), (mesh.faces[face] == np.arange(len(face))[:, None]).argmax(axis=1)] = 1
    spacing = np.full(len(face), footprint, np.float32)
    return albedo(SurfaceSamples(mesh.vertices, vertex_normals(mesh), face, weights, spacing))


PRESETS = ("relief", "zoom", "object", "demo")


def make_scene(
    preset: str, size: tuple[int, int] | None = None, seed: int = 0, coarseness: float = 1.0
) -> SyntheticScene:
    """Render one of the named scenes.

    Args:
        preset: "relief": twelve photos of a façade, two rows. "zoom": ten photos of a façade in two groups
            whose
            distances differ by 2.6. "object": twenty photos round a knot on a pedestal. "demo": eight small
            photos of the façade.
        size: (width, height) of the photos; None for the preset's own.
        seed: of textures, paths and noise.
        coarseness: factor on the distance between the façade's vertices; quick drafts.

    Raises:
        UsageError: no such preset.
    """
    if preset == "relief":
        width, height = size or (800, 600)
        poses = grid_path(6, 2, (0, 0, 2.0), (0.85, 0.9), 4.6, 0.45, seed, 0.05)
        mesh = height_field_mesh(facade_height(seed), (-3.4, 3.4), (0.0, 4.3), 0.01 * coarseness)
        return render_scene(
            preset, mesh, facade_albedo(seed), pinhole_views(poses, width, height, 62), seed=seed
        )
    if preset == "zoom":
        width, height = size or (800, 600)
        seed += 11
        poses = zoom_path(((4, 6.0, 2.8), (6, 2.3, 2.6)), (0, 0, 2.0), seed, 0.04)
        mesh = height_field_mesh(facade_height(seed), (-3.4, 3.4), (0.0, 4.3), 0.01 * coarseness)
        return render_scene(
            preset, mesh, facade_albedo(seed), pinhole_views(poses, width, height, 62), seed=seed
        )
    if preset == "object":
        width, height = size or (800, 600)
        poses = arc_path(20, (0, 0, 0.6), 2.9, 360, 1.5, seed, 0.03)
        views = pinhole_views(poses, width, height, 46)
        return render_scene(preset, object_mesh(), solid_albedo(seed), views, Lighting(samples=16), seed=seed)
    if preset == "demo":
        width, height = size or (640, 480)
        seed += 5
        poses = arc_path(8, (0, 0, 2.0), 4.4, 56, 0.2, seed, 0.06)
        mesh = height_field_mesh(facade_height(seed), (-3.4, 3.4), (0.0, 4.3), 0.0125 * coarseness)
        views = pinhole_views(poses, width, height, 64)
        return render_scene(preset, mesh, facade_albedo(seed), views, Lighting(samples=8), seed=seed)
    raise UsageError(f"no synthetic scene {preset!r}; there are: {', '.join(PRESETS)}")


# ---- scenes of one difficulty ---------------------------------------------------------------------


@dataclass(frozen=True)
class Difficulty:
    """One thing that makes matching hard, and how much of it.

    Attributes:
        meaning: what the number says, with its unit.
        low, high: range that is allowed.
        default: what a scene has that does not name it.
    """

    meaning: str
    low: float
    high: float
    default: float


_DIFFICULTIES: Mapping[str, Difficulty] = {
    "baseline": Difficulty("degrees between neighbouring cameras, seen from the scene", 1, 25, 8),
    "zoom": Difficulty("ratio of the distances of every second camera to those of the others", 1, 8, 1),
    "roll": Difficulty("degrees by which neighbouring cameras are turned about their axis", 0, 90, 0),
    "exposure": Difficulty("stops: exposures are spread from minus to plus so much", 0, 3, 0),
    "noise": Difficulty("standard deviation at middle grey, in grey levels of 255", 0, 40, 1),
    "blur": Difficulty("standard deviation of the lens blur in pixels", 0, 6, 0.6),
    "low_texture": Difficulty("share of the texture's contrast (logarithmic) that is taken away", 0, 1, 0),
    "repeated_texture": Difficulty("share of the texture that is one tile over and over", 0, 1, 0),
    "specularity": Difficulty("strength of highlights that move with the camera; 1 is a wet stone", 0, 1, 0),
}

BENCHMARK_SCENES: Mapping[str, str] = {
    "facade": "a wall with columns, niches and mouldings",
    "rocks": "a rock face with ledges and boulders",
    "object": "a ridged knot on a pedestal on gravel",
}

"""Scenes that are made here; any textured mesh (.obj, .glb), by its path or by its card's name, is one too."""

_PERIODS = {"facade": 0.45, "rocks": 0.45}
"""Side of a tile of repeated texture, world units; objects, seen from nearer, have 0.2."""

_LAMPS = ((-0.5, -1.0, 0.15), (0.7, -1.0, 0.5), (0.1, -0.6, 1.2))
"""Broad lights on the cameras' side: their reflections move over the surface from photo to photo."""

_VERSION = 2
"""Of the rendering: raised when the same scene would come out different."""


def difficulties() -> dict[str, Difficulty]:
    """What ``render_benchmark_scene`` can be made harder by, with ranges, by name."""
    return dict(_DIFFICULTIES)


def make_benchmark_scene(
    scene: str,
    *,
    seed: int = 0,
    photos: int = 6,
    size: tuple[int, int] = (640, 480),
    coarseness: float = 1.0,
    **difficulty: float,
) -> SyntheticScene:
    """Render photos of a scene at stated difficulties, everything else being equal.

    For one seed the surface, its paint, the light, the places from which the cameras deviate and the pattern
    of the noise are the same whatever the difficulties: two values of one difficulty differ in that alone.

    Args:
        scene: one of ``BENCHMARK_SCENES``, or the path of a textured mesh.
        seed: of surface, paint, cameras and noise.
        photos: how many, at least two; on an arc before the scene.
        size: (width, height) in pixels.
        coarseness: factor on the distance between vertices of what is made here; quick drafts.
        difficulty: see ``difficulties``.

    Raises:
        UsageError: no such scene or difficulty, or a value out of its range.
        ReconError: the mesh cannot be read.
    """
    hard = _checked(scene, photos, size, difficulty)
    mesh, albedo, target, distance, height, field_of_view = _surface(scene, seed, coarseness)
    mean = vertex_albedo(mesh, albedo, 0.01).astype(np.float64).mean(axis=0).astype(np.float32)
    if hard["repeated_texture"] > 0:
        albedo = tiled(albedo, mean, hard["repeated_texture"], _PERIODS.get(scene, 0.2), seed)
    if hard["low_texture"] > 0:
        albedo = plainer(albedo, mean, hard["low_texture"])
    poses = _benchmark_path(photos, target, distance, height, hard, seed)
    # Evenly spread, so that few photos have the whole spread; in an order that the seed shuffles.
    steps = np.random.default_rng((seed, 2)).permutation(np.linspace(-1, 1, photos))
    return render_scene(
        scene if scene in BENCHMARK_SCENES else _mesh_name(_mesh_file(scene)),
        mesh,
        albedo,
        pinhole_views(poses, *size, field_of_view),
        # A glossy surface sends away less light of its own colour.
        Lighting(
            sun_strength=0.75 * (1 - 0.3 * hard["specularity"]),
            sky_strength=0.55 * (1 - 0.3 * hard["specularity"]),
            samples=10,
            specular=0.5 * hard["specularity"],
            shininess=24,
            lamps=_LAMPS,
            smoothing=4,
        ),
        # No JPEG: its losses would be a difficulty that nobody asked for.
        Sensor(hard["blur"], 0.0, *_electrons(hard["noise"]), jpeg_quality=0),
        seed=seed,
        exposures=[2.0 ** (hard["exposure"] * float(step)) for step in steps],
    )


def render_benchmark_scene(
    out: Path,
    *,
    scene: str,
    seed: int,
    photos: int = 6,
    size: tuple[int, int] = (640, 480),
    **difficulty: float,
) -> GroundTruth:
    """Write a scene of ``make_benchmark_scene`` into a folder and return its truth.

    The same arguments give the same bytes. A folder that already holds just this scene is left as it is.

    Args:
        out: folder of the scene; made if it is not there.
        scene, seed, photos, size, difficulty: as in ``make_benchmark_scene``.

    Raises:
        UsageError: no such scene or difficulty, a value out of its range, or the folder holds something else.
        ReconError: the mesh cannot be read.
    """
    from recon.datasets.ground_truth import load_ground_truth

    out = Path(out)
    hard = _checked(scene, photos, size, difficulty)
    wanted = {
        "version": _VERSION,
        "scene": scene if scene in BENCHMARK_SCENES else _file_hash(_mesh_file(scene)),
        "seed": seed,
        "photos": photos,
        "size": list(size),
        "difficulty": hard,
    }
    stamp, begun = out / "scene.json", out / "scene.json.part"
    found = _stamp(stamp)
    if found == wanted:
        return load_ground_truth(out)
    if found is not None and found | {"version": _VERSION} != wanted:
        raise UsageError(f"{out}: holds another rendered scene; name another folder or remove this one")
    if found is None and (out / "cameras.json").exists() and _stamp(begun) != wanted:
        raise UsageError(f"{out}: holds another scene; name another folder or remove this one")
    made = make_benchmark_scene(scene, seed=seed, photos=photos, size=size, **difficulty)
    # Renamed when all is written: a scene with this file is whole, one without was cut off.
    stamp.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    begun.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
    write_scene(made, out)
    os.replace(begun, stamp)
    return load_ground_truth(out)


def _stamp(path: Path) -> dict[str, Any] | None:
    """What a scene's file says of how it was made; None without a file."""
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _checked(
    scene: str, photos: int, size: tuple[int, int], difficulty: Mapping[str, float]
) -> dict[str, float]:
    """All difficulties with their values; what is not named has its default."""
    if scene not in BENCHMARK_SCENES:
        _mesh_file(scene)
    if photos < 2 or min(size) < 16:
        raise UsageError("a rendered scene has at least 2 photos of at least 16 x 16 pixels")
    values = {name: one.default for name, one in _DIFFICULTIES.items()}
    for name, value in difficulty.items():
        if name not in _DIFFICULTIES:
            raise UsageError(f"no difficulty {name!r}; there are: {', '.join(_DIFFICULTIES)}")
        allowed = _DIFFICULTIES[name]
        if not allowed.low <= value <= allowed.high:
            raise UsageError(f"{name} is from {allowed.low:g} to {allowed.high:g}, not {value:g}")
        values[name] = float(value)
    span = values["baseline"] * (photos - 1)
    if span > 150 and scene in ("facade", "rocks"):
        raise UsageError(
            f"{photos} cameras {values['baseline']:g} degrees apart would look at a wall from behind; "
            f"at most {int(150 / values['baseline']) + 1} photos, or a smaller baseline"
        )
    return values


def _surface(
    scene: str, seed: int, coarseness: float
) -> tuple[MeshData, Albedo, tuple[float, float, float], float, float, float]:
    """Mesh, reflectance, what the cameras look at, their horizontal distance and height, field of view."""
    if scene in ("facade", "rocks"):
        relief = facade_height(seed) if scene == "facade" else rock_height(seed)
        mesh = height_field_mesh(relief, (-3.4, 3.4), (0.0, 4.3), 0.0125 * coarseness)
        paint = facade_albedo(seed) if scene == "facade" else rock_albedo(seed)
        return mesh, paint, (0.0, -0.2, 2.1), 4.2, 0.15, 60.0
    if scene == "object":
        return object_mesh(coarseness), solid_albedo(seed), (0.0, 0.0, 0.55), 2.6, 1.3, 46.0
    from recon.datasets.mesh_files import read_textured_mesh

    mesh, paint = mesh_on_ground(read_textured_mesh(_mesh_file(scene)), seed)
    top = float(mesh.vertices[:, 2].max())
    return mesh, paint, (0.0, 0.0, 0.4 * top), 1.7, 0.9, 46.0


def _benchmark_path(
    photos: int,
    target: tuple[float, float, float],
    distance: float,
    height: float,
    hard: Mapping[str, float],
    seed: int,
) -> list[Float64[np.ndarray, "3 4"]]:
    """Cameras on an arc, near and far in turn, each a little off its place and its aim."""
    rng = np.random.default_rng((seed, 1))
    aim = np.asarray(target, np.float64)
    poses = []
    for i in range(photos):
        # The far ones move back less than the near ones move in: a wall would be lost in its sky.
        scale = hard["zoom"] ** (0.4 if i % 2 == 0 else -0.6)
        angle = math.radians(hard["baseline"] * (i - (photos - 1) / 2))
        offset = np.array([distance * math.sin(angle), -distance * math.cos(angle), height]) * scale
        eye = aim + offset + rng.normal(0, 0.01, 3) * distance * scale
        roll = math.radians(hard["roll"]) * (0.5 if i % 2 == 0 else -0.5)
        poses.append(look_at(eye, aim + rng.normal(0, 0.015, 3) * distance * scale, roll=roll))
    return poses


def _electrons(noise: float) -> tuple[float, float]:
    """Full well and read noise (electrons) of a sensor with so much noise, in grey levels at middle grey.

    Middle grey is 127.5 of 255, so light is 0.5 ** 2.2 of white, and a step of light is
    0.5 / (2.2 * light) steps of grey. Variance in electrons is light * full_well + read_noise².
    """
    if noise <= 0:
        return 0.0, 0.0
    light, read_noise = 0.5**2.2, 8.0
    sigma = noise / 255 * 2.2 * light / 0.5
    full_well = (light + math.sqrt(light**2 + 4 * sigma**2 * read_noise**2)) / (2 * sigma**2)
    return full_well, read_noise


def _mesh_file(scene: str) -> Path:
    """The mesh of a scene that is given by a path, or by a card whose layout names a mesh."""
    from recon.datasets.cards import load_cards

    if Path(scene).is_file():
        return Path(scene)
    cards = {name: card for name, card in load_cards().items() if "mesh" in card.layout}
    if scene in cards:
        path = cards[scene].folder() / cards[scene].layout["mesh"]
        if path.is_file():
            return path
        raise ReconError(f"{path}: is not there; {cards[scene].name} should have it")
    names = ", ".join([*BENCHMARK_SCENES, *cards])
    raise UsageError(f"no rendered scene {scene!r}; there are: {names}, or the path of a .obj or .glb file")


def _mesh_name(path: Path) -> str:
    """What to call the scene of a mesh: many files are just called mesh, in a folder that says of what."""
    generic = path.stem.lower() in {"mesh", "model", "scene", "textured", "textured_simple"}
    return path.resolve().parent.name if generic else path.stem


def _file_hash(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- files ---------------------------------------------------------------------------------------


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
    entries = []
    for image, view, depth, normal, mask in zip(
        scene.images, scene.views, scene.depths, scene.normals, scene.masks, strict=True
    ):
        picture = Image.fromarray(image)
        exif = picture.getexif()
        exif[0x010F], exif[0x0110] = "recon", "synthetic pinhole"  # make and model
        # 35 mm equivalent by the width of the frame, as cameras with a 3:2 sensor count it.
        exif.get_ifd(0x8769)[0xA405] = round(36.0 * float(view.K[0, 0]) / view.width)
        picture.save(folder / "images" / view.name, exif=exif)
        np.savez_compressed(
            folder / "truth" / "depth" / f"{Path(view.name).stem}.npz", depth=depth, normal=normal
        )
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "truth" / "masks" / view.name)
        entries.append(
            {
                "name": view.name,
                "width": view.width,
                "height": view.height,
                "fx": float(view.K[0, 0]),
                "fy": float(view.K[1, 1]),
                "cx": float(view.K[0, 2]),
                "cy": float(view.K[1, 2]),
                "R": view.cam_from_world[:, :3].tolist(),
                "t": view.cam_from_world[:, 3].tolist(),
            }
        )
    document = {"convention": CONVENTION, "world_unit": "metre", "name": scene.name, "images": entries}
    (folder / "cameras.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    write_ply(folder / "truth" / "mesh.ply", scene.mesh)


def write_ply(path: Path, mesh: MeshData) -> None:
    """Write a mesh as binary PLY."""
    import open3d as o3d

    out = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices.astype(np.float64)), o3d.utility.Vector3iVector(mesh.faces)
    )
    if mesh.colors is not None:
        out.vertex_colors = o3d.utility.Vector3dVector(mesh.colors / 255.0)
    if not o3d.io.write_triangle_mesh(path, out):
        raise OSError(f"{path}: cannot be written")


def render_truth(scene: SyntheticScene, view: PinholeView) -> UInt8[np.ndarray, "h w 3"]:
    """Render the truth's reflectance from a view."""
    return render_vertex_colors(scene.mesh, view)[0]
