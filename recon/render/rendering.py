"""Films and pictures of a result: its layer, the camera path, and the files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from recon.core.cameras import PinholeView
from recon.core.parallel import imap_ordered
from recon.errors import ReconError, UsageError, reading
from recon.exports import nerfstudio
from recon.exports.options import ExportReport
from recon.exports.scene import Scene
from recon.exports.source import load_scene, open_run
from recon.io.files import parse_json
from recon.io.pictures import encode_picture
from recon.options import image_size
from recon.render import trajectories, video
from recon.render.canvas import (
    Canvas,
    Style,
    Surface,
    draw_lines,
    draw_points,
)
from recon.render.frusta import camera_lines, frustum_size, photo_frames
from recon.render.options import LAYERS, RenderOptions
from recon.render.pictures import overview_view, point_spacing
from recon.render.pose_splines import interpolate_poses, parse_tum
from recon.render.scene import ViewScene
from recon.render.scene_files import open_view_scene, read_view_mesh

_STILL_SUFFIXES = (".png", ".jpg", ".jpeg")
_VIEWPOINTS = ("front", "oblique", "top")
_BACKGROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0)}
_FRAME_COLOR = (24, 92, 168)
_SECONDS = 8.0
_PHOTOS_SECONDS = (6.0, 40.0)
_AWAY_FOR_CAMERAS, _RISE_FOR_CAMERAS = 1.8, np.radians(14.0)
"""With cameras drawn an orbit stands farther off and higher, so that they are in the picture."""
_SPARSE_RADIUS = 0.004
"""Radius of a sparse point over the distance to the subject."""
_MAX_SIDE = 8192
_STEPS = 101
_ROTATION = 0.05  # how far a matrix of a trajectory may be from a rotation
"""A way is cut into so many places to choose one from."""
_PHOTO_TEXELS = 256


def run_render(path: Path, out: Path, options: RenderOptions) -> ExportReport:
    """Draw a film or pictures.

    Raises:
        UsageError: options that make no sense, or a file of poses that is not there.
        ReconError: the result lacks what is to be drawn, or the film cannot be written.
    """
    width, height = image_size(options.size, "--size", _MAX_SIDE)
    background = _background(options.background)
    film = _kind(out, options)
    scene = open_view_scene(path, options.photos)
    notes = list(scene.notes)
    scene, layer = _with_layer(path, scene, options.layer, options.shaded)
    count = _count(scene, options, film)
    if options.at is not None and (film or count > 1 or options.trajectory in _VIEWPOINTS):
        raise UsageError("--at says where on an orbit or another way a single picture is taken")
    views = _path(scene, options, width, height, count if options.at is None else _STEPS, film)
    if options.at is not None:
        views = [views[round(options.at * (_STEPS - 1))]]
    if options.cameras and options.trajectory == "orbit" and options.distance is None and scene.photos:
        views = trajectories.fitted(views, _shown(scene.points(), scene.views))
    draw = _drawer(scene, layer, options, background, notes)
    try:
        (out.parent if film or out.suffix else out).mkdir(parents=True, exist_ok=True)
        with closing(_drawn(draw, views, options.threads or os.cpu_count() or 1)) as pictures:
            if film:
                return _write_film(out, pictures, options, len(views), notes)
            return _write_stills(out, pictures, len(views), notes)
    except OSError as error:
        raise ReconError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error


# What the user said


def _background(text: str) -> tuple[int, int, int]:
    if text in _BACKGROUNDS:
        return _BACKGROUNDS[text]
    digits = text.removeprefix("#")
    if not re.fullmatch(r"[0-9a-fA-F]{6}", digits):
        raise UsageError(f"--background {text}: it is white, black or a colour as RRGGBB (f4f1ea)")
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def _kind(out: Path, options: RenderOptions) -> bool:
    """True for a film; checks that what is to be written and where fit together."""
    suffix = out.suffix.lower()
    if suffix in video.SUFFIXES:
        if options.stills is not None:
            raise UsageError(f"--out {out} is a video; leave out --stills, or give a folder")
        if options.trajectory in _VIEWPOINTS:
            raise UsageError(f"--trajectory {options.trajectory} is one picture; give --out picture.png")
        return True
    if suffix in _STILL_SUFFIXES:
        if options.stills not in (None, 1):
            raise UsageError(f"--out {out} is one picture; give a folder for --stills {options.stills}")
        return False
    if options.stills is None or (suffix and not out.is_dir()):
        every = ", ".join((*video.SUFFIXES, *_STILL_SUFFIXES))
        raise UsageError(f"--out {out}: give a file ({every}), or --stills N and a folder")
    if out.is_file():
        raise UsageError(f"--out {out}: is a file; give a folder for --stills")
    return False


def _count(scene: ViewScene, options: RenderOptions, film: bool) -> int:
    if not film:
        return 1 if options.trajectory in _VIEWPOINTS else options.stills or 1
    seconds = options.seconds
    if seconds is None:
        seconds = _SECONDS
        if options.trajectory == "photos":
            seconds = float(np.clip(len(scene.photos), *_PHOTOS_SECONDS))
    return max(2, round(seconds * options.fps))


# What is drawn


def _with_layer(path: Path, scene: ViewScene, wanted: str | None, shaded: bool) -> tuple[ViewScene, str]:
    """The layer to draw, with its data in the scene."""
    if wanted is not None and wanted not in LAYERS:
        raise UsageError(f"--layer {wanted}: it is one of {', '.join(LAYERS)}")
    lacks = {
        "textured": ("no textured mesh", "texture", scene.mesh is None or not scene.mesh.textured),
        "mesh": ("no mesh", "mesh", scene.mesh is None),
        "dense": ("no dense points", "fuse", scene.dense is None),
        "sparse": ("no sparse points", "map", scene.sparse is None or not len(scene.sparse.xyz)),
    }
    if wanted is None:
        wanted = next((name for name in LAYERS if not lacks[name][2]), None)
        if wanted is None:
            raise ReconError(f"{path}: has neither a mesh nor points to draw")
    if shaded and wanted not in ("textured", "mesh"):
        raise UsageError(f"--shaded draws a mesh, --layer is {wanted}")
    if wanted == "mesh" and (path / "mesh" / "mesh.ply").is_file():
        # A run has two: this one is finer and has colours at its vertices.
        mesh, _ = read_view_mesh(path / "mesh" / "mesh.ply")
        return replace(scene, mesh=mesh.near(scene.offset)), wanted
    what, stage, missing = lacks[wanted]
    if missing:
        raise ReconError(
            f"{path}: has {what}; run 'recon reconstruct' as far as stage {stage}, or choose another --layer"
        )
    return scene, wanted


def _drawer(
    scene: ViewScene,
    layer: str,
    options: RenderOptions,
    background: tuple[int, int, int],
    notes: list[str],
) -> Callable[[PinholeView], UInt8[np.ndarray, "h w 3"]]:
    """A function that draws the scene from a camera."""
    distance = trajectories.find_subject(scene.points(), scene.views).distance if scene.photos else 1.0
    surface: Surface | None = None
    xyz, rgb, radius = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), 0.0
    style: Style = "shaded" if options.shaded else "texture" if layer == "textured" else "color"
    if layer in ("textured", "mesh"):
        assert scene.mesh is not None
        mesh = scene.mesh
        surface = Surface(mesh.vertices, mesh.faces, mesh.rgb, mesh.uv, mesh.texture)
        if style == "color" and mesh.rgb is None:
            style = "texture" if mesh.textured else "shaded"
    elif layer == "dense":
        assert scene.dense is not None
        xyz, colors = scene.dense.xyz, scene.dense.rgb
        rgb = np.full(xyz.shape, 110, np.uint8) if colors is None else colors
        radius = point_spacing(xyz)
    else:
        assert scene.sparse is not None
        xyz, rgb = scene.sparse.xyz.astype(np.float32), scene.sparse.rgb
        radius = _SPARSE_RADIUS * distance
    if options.cameras and not scene.photos:
        notes.append("there are no cameras to draw")
    shown = scene.views if options.cameras else []
    depth = frustum_size(shown, distance) if shown else 0.0
    frames = _frames(scene, depth) if shown else None

    def draw(view: PinholeView) -> UInt8[np.ndarray, "h w 3"]:
        canvas = Canvas.blank(view, background, options.samples)
        if surface is not None:
            surface.draw(canvas, style)
        if len(xyz):
            draw_points(canvas, xyz, rgb, radius)
        if frames is not None:
            frames.draw(canvas, "texture")
        # A frame round one's own eye would only be in the way.
        lines = [
            camera_lines(one, depth) for one in shown if np.linalg.norm(one.center - view.center) > 2 * depth
        ]
        if lines:
            segments = np.concatenate(lines)
            draw_lines(canvas, segments, np.tile(np.array(_FRAME_COLOR, np.uint8), (len(segments), 1)))
        return canvas.picture()

    return draw


def _frames(scene: ViewScene, depth: float) -> Surface | None:
    """The photos that are there, each in its camera's frame."""
    there = [photo for photo in scene.photos if photo.path is not None]
    if not there:
        return None
    pictures = [photo.undistorted(_PHOTO_TEXELS)[0] for photo in there]
    return photo_frames([photo.view for photo in there], pictures, depth, _PHOTO_TEXELS)


# Where from


def _path(
    scene: ViewScene, options: RenderOptions, width: int, height: int, count: int, film: bool
) -> list[PinholeView]:
    """The cameras to draw from."""
    name = options.trajectory
    xyz = scene.points()
    views = scene.views or _round_about(xyz, scene.up)
    if name in _VIEWPOINTS:
        style = cast(Literal["front", "oblique", "top"], name)
        return [overview_view(xyz, views, style, width, height, with_cameras=options.cameras)]
    if name == "orbit":
        away, rise = (
            (_AWAY_FOR_CAMERAS, _RISE_FOR_CAMERAS) if options.cameras and scene.photos else (1.0, 0.0)
        )
        return trajectories.orbit(
            xyz,
            views,
            scene.up,
            count,
            width,
            height,
            film=film,
            stretch=options.distance or away,
            rise=rise,
        )
    shares = trajectories.even_shares(count)
    if name == "photos":
        if not scene.photos:
            raise UsageError(f"--trajectory photos: {scene.name} has no cameras; orbit goes round it")
        return trajectories.through_photos(xyz, views, shares, width, height)
    times, poses = _read_poses(Path(name), scene)
    K = trajectories.photos_calibration(views, width, height)
    return [
        PinholeView(-1, f"path-{i}", K, pose, width, height)
        for i, pose in enumerate(interpolate_poses(poses, times, shares * times[-1]))
    ]


def _shown(xyz: np.ndarray, views: Sequence[PinholeView]) -> np.ndarray:
    """Points that must be in the picture when cameras are drawn: their frames, and all but the outermost points."""
    low, high = np.percentile(np.asarray(xyz, np.float64), [1, 99], axis=0)
    inside = xyz[((xyz >= low) & (xyz <= high)).all(axis=1)]
    depth = frustum_size(views, trajectories.find_subject(xyz, views).distance)
    return np.concatenate([inside, *(camera_lines(view, depth).reshape(-1, 3) for view in views)])


def _round_about(xyz: np.ndarray, up: np.ndarray) -> list[PinholeView]:
    """Cameras all round something that nobody photographed, slightly from above, so that it fills their pictures."""
    low, high = np.percentile(np.asarray(xyz, np.float64), [0.5, 99.5], axis=0)
    middle, radius = 0.5 * (low + high), 0.5 * float(np.linalg.norm(high - low)) or 1.0
    side = 600
    K = np.array([[side * 1.2, 0, side / 2 - 0.5], [0, side * 1.2, side / 2 - 0.5], [0, 0, 1.0]])
    across = np.cross(up, [1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0])
    across /= np.linalg.norm(across)
    views = []
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        outwards = np.cos(angle) * across + np.sin(angle) * np.cross(up, across) + 0.35 * up
        eye = middle + 2.6 * radius * outwards / np.linalg.norm(outwards)
        views.append(trajectories.look_at(eye, middle, up, K, side, side))
    return views


def _read_poses(path: Path, scene: ViewScene) -> tuple[np.ndarray, np.ndarray]:
    """Times and poses (world to camera) of a file, near the scene's origin."""
    if not path.exists():
        raise UsageError(
            f"--trajectory {path}: there is no such file; it is orbit, photos, {', '.join(_VIEWPOINTS)}, a TUM text, "
            "a transforms.json or a folder with a COLMAP model"
        )
    if not path.is_dir() and path.suffix.lower() != ".json":
        try:
            times, poses = parse_tum(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ReconError(f"{path}: holds no trajectory ({error})") from error
    else:
        given = _scene_of(path)
        poses = np.array([view.cam_from_world for view in given.views])
        times = np.arange(len(poses), dtype=np.float64)
    for number, rotation in enumerate(poses[:, :, :3]):
        off = np.abs(rotation @ rotation.T - np.eye(3)).max()
        if not (off < _ROTATION and np.linalg.det(rotation) > 0 and np.isfinite(poses[number]).all()):
            raise ReconError(f"{path}: holds no trajectory (pose {number + 1} is no rotation and place)")
    poses = poses.copy()
    poses[:, :, 3] += poses[:, :, :3] @ scene.offset
    return times, poses


def _scene_of(path: Path) -> Scene:
    if path.is_dir():
        return load_scene(open_run(path))
    with reading(path, "it holds no trajectory"):
        scene = nerfstudio.from_transforms(parse_json(path.read_text(encoding="utf-8")))
    if not scene.views:
        raise ReconError(f"{path}: holds no trajectory (no frames)")
    return scene


# Drawing and writing


def _drawn(
    draw: Callable[[PinholeView], UInt8[np.ndarray, "h w 3"]], views: Sequence[PinholeView], threads: int
) -> Generator[UInt8[np.ndarray, "h w 3"], None, None]:
    """Draw the pictures in order, a few ahead."""
    bar = tqdm(total=len(views), unit="picture", disable=None)
    with bar, closing(cast(Any, imap_ordered(draw, views, threads))) as pictures:
        for picture in pictures:
            yield picture
            bar.update()


def _write_film(
    out: Path,
    pictures: Iterator[UInt8[np.ndarray, "h w 3"]],
    options: RenderOptions,
    count: int,
    notes: list[str],
) -> ExportReport:
    part = out.with_name(f".{out.stem}.part{out.suffix}")
    try:
        _, coding = video.write_video(part, pictures, options.fps)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    if "OpenCV" in coding:
        notes.append("coded without PyAV, which is slow and not for every phone; pip install av")
    return ExportReport(
        f"{count} pictures, {count / options.fps:.1f} s, {coding}", (out,), tuple(dict.fromkeys(notes))
    )


def _write_stills(
    out: Path, pictures: Iterator[UInt8[np.ndarray, "h w 3"]], count: int, notes: list[str]
) -> ExportReport:
    single = out.suffix.lower() in _STILL_SUFFIXES
    written = []
    for index, picture in enumerate(pictures):
        path = out if single else out / f"{index:04d}.png"
        part = path.with_name(f".{path.stem}.part")
        part.write_bytes(encode_picture(picture, "png" if path.suffix.lower() == ".png" else "jpg", 90))
        part.replace(path)
        written.append(path)
    return ExportReport(f"{count} picture{'s' * (count > 1)}", tuple(written), tuple(dict.fromkeys(notes)))
