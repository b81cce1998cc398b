"""Bundler's ``bundle.out`` (v0.3) and ``list.txt``.

Source: Bundler user's manual, "Output format and scene representation". The camera looks down its negative z axis,
y up; pixels are measured from the centre of the image, y up. One focal length and two radial coefficients; the
principal point is the centre of the image. Photos without a pose would have a focal length of 0; all of a scene's
views have one.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from recon.core.cameras import Intrinsics
from recon.errors import ReconError
from recon.exports.export import Export, Format
from recon.exports.files import Imported, first_file
from recon.exports.scene import Scene, SceneView, centred_pinhole, scene_of_views
from recon.photos.reading import PhotoError, decode_photo

BUNDLE, LIST = "bundle.out", "list.txt"

BUNDLER_FROM_CAMERA = np.diag([1.0, -1.0, -1.0])

CENTRE_TOLERANCE_PX = 1e-6
"""A principal point or a difference of focal lengths below this counts as none."""


def unrepresentable(camera: Intrinsics) -> str | None:
    """Parts of a camera that this format cannot hold, None if it can hold all."""
    if camera.model not in {"SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL"}:
        return f"camera model {camera.model}"
    K = camera.K
    centre = 0.5 * np.array([camera.width - 1, camera.height - 1])
    if np.abs(K[:2, 2] - centre).max() > CENTRE_TOLERANCE_PX:
        return "a principal point that is not the centre of the image"
    if abs(K[0, 0] - K[1, 1]) > CENTRE_TOLERANCE_PX:
        return "two focal lengths"
    return None


def to_bundle(scene: Scene) -> str:
    """The text of ``bundle.out``; keypoints are numbered as in the scene.

    Raises:
        ValueError: a camera cannot be represented (see ``unrepresentable``).
    """
    out = ["# Bundle file v0.3", f"{len(scene.views)} {len(scene.xyz)}"]
    for view in scene.views:
        camera = scene.intrinsics(view)
        problem = unrepresentable(camera)
        if problem:
            raise ValueError(f"Bundler does not know {problem}")
        radial = (*_radial(camera), 0.0, 0.0)[:2]
        out.append(_numbers((camera.K[0, 0], *radial)))
        pose = BUNDLER_FROM_CAMERA @ view.cam_from_world
        out += [_numbers(row) for row in pose[:, :3]]
        out.append(_numbers(pose[:, 3]))
    centres = [_centre(scene.intrinsics(view)) for view in scene.views]
    for row, track in enumerate(scene.tracks()):
        out.append(_numbers(scene.xyz[row]))
        out.append(" ".join(str(int(value)) for value in scene.rgb[row]))
        seen = [str(len(track))]
        for index, keypoint in track:
            x, y = scene.views[index].keypoints[keypoint] - centres[index]
            seen.append(f"{index} {keypoint} {x:.17g} {-y:.17g}")
        out.append(" ".join(seen))
    return "\n".join(out) + "\n"


def to_list(scene: Scene) -> str:
    """The text of ``list.txt``: name, 0 and focal length of each photo.

    Raises:
        ValueError: a name holds white space, which this format cannot say.
    """
    for view in scene.views:
        if len(view.name.split()) != 1:
            raise ValueError(f"a name with white space ({view.name})")
    return "".join(f"{view.name} 0 {scene.intrinsics(view).K[0, 0]:.17g}\n" for view in scene.views)


def from_bundle(text: str, names: list[str], sizes: list[tuple[int, int]]) -> Scene:
    """The scene of a ``bundle.out``.

    Args:
        text: the file.
        names, sizes: of the photos in the order of ``list.txt``; the file does not hold sizes.

    Raises:
        ValueError: it is not such a file, or has another number of cameras.
    """
    stream = io.StringIO(text)
    if "v0.3" not in stream.readline():
        raise ValueError("not a bundle file v0.3")
    tokens = iter(stream.read().split())

    def numbers(count: int) -> Float64[np.ndarray, " n"]:
        return np.array([float(next(tokens)) for _ in range(count)])

    try:
        cameras, points = int(next(tokens)), int(next(tokens))
        if cameras != len(names) or cameras != len(sizes):
            raise ValueError(f"{cameras} cameras, but {len(names)} names")
        intrinsics: list[Intrinsics] = []
        poses, rows = [], []
        for index in range(cameras):
            focal, k1, k2 = numbers(3)
            pose = np.column_stack([numbers(9).reshape(3, 3), numbers(3)])
            poses.append(BUNDLER_FROM_CAMERA @ pose)
            width, height = sizes[index]
            centre = (0.5 * (width - 1), 0.5 * (height - 1))
            camera = Intrinsics(
                "RADIAL", (float(focal), *centre, float(k1), float(k2)), width, height, False, True
            )
            if focal > 0 and camera not in intrinsics:
                intrinsics.append(camera)
            rows.append(intrinsics.index(camera) if focal > 0 else -1)
        xyz, rgb = np.zeros((points, 3)), np.zeros((points, 3), np.uint8)
        keypoints: list[dict[int, tuple[float, float]]] = [{} for _ in range(cameras)]
        seen: list[tuple[int, int, int]] = []
        for point in range(points):
            xyz[point], rgb[point] = numbers(3), numbers(3).astype(np.uint8)
            for _ in range(int(next(tokens))):
                view, keypoint = int(next(tokens)), int(next(tokens))
                x, y = numbers(2)
                width, height = sizes[view]
                keypoints[view][keypoint] = (x + 0.5 * (width - 1), 0.5 * (height - 1) - y)
                seen.append((point, view, keypoint))
    except (StopIteration, IndexError) as error:
        raise ValueError("the bundle file ends early") from error
    kept = {view: row for row, view in enumerate(index for index in range(cameras) if rows[index] >= 0)}
    views = []
    for view in kept:
        order = sorted(keypoints[view])
        xy = np.array([keypoints[view][key] for key in order], np.float64).reshape(-1, 2)
        views.append(SceneView(names[view], rows[view], poses[view], xy))
    number = {view: {key: i for i, key in enumerate(sorted(keypoints[view]))} for view in kept}
    observations = [(p, kept[v], number[v][k]) for p, v, k in seen if v in kept]
    return scene_of_views(intrinsics, views, xyz, rgb, observations)


def write(job: Export, folder: Path) -> str:
    """Write ``bundle.out`` and ``list.txt`` into a folder; returns what it wrote in words."""
    scene = job.with_folder(job.prepared(folder))
    (folder / BUNDLE).write_text(to_bundle(scene), encoding="ascii")
    (folder / LIST).write_text(to_list(scene), encoding="utf-8")
    return scene.in_words()


def read(source: Path, photos: Path | None, notes: list[str]) -> Imported:
    """Read ``bundle.out`` and ``list.txt``."""
    path = first_file(source, (BUNDLE, "bundle/bundle.out", "bundle.rd.out"), "")
    listing = next(
        (
            place / name
            for place in (path.parent, path.parent.parent)
            for name in (LIST, "bundle.out.list.txt")
            if (place / name).is_file()
        ),
        None,
    )
    if listing is None:
        raise ReconError(f"{path}: its list of photos (list.txt) is not beside it")
    names = [line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    folder = photos or listing.parent
    sizes = []
    for name in names:
        try:
            decoded = decode_photo(folder / name)
        except PhotoError as error:
            raise ReconError(
                f"{folder / name}: {error}; Bundler's files do not say how large photos are: give --photos DIR"
            ) from error
        sizes.append((decoded.width, decoded.height))
    del notes
    return Imported(from_bundle(path.read_text(encoding="ascii"), names, sizes), photos=(folder,))


FORMAT = Format(write, unrepresentable, centred_pinhole, one_word_names=True)


def _radial(camera: Intrinsics) -> tuple[float, ...]:
    return camera.params[3:] if camera.model in {"SIMPLE_RADIAL", "RADIAL"} else ()


def _centre(camera: Intrinsics) -> Float64[np.ndarray, "2"]:
    return 0.5 * np.array([camera.width - 1.0, camera.height - 1.0])


def _numbers(values: object) -> str:
    return " ".join(f"{float(value):.17g}" for value in np.asarray(values).ravel())
