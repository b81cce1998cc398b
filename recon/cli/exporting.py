"""What ``recon export`` does: reads a run, has it written in another format, and puts it in place."""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import cv2
import numpy as np
import pycolmap
from jaxtyping import Bool, UInt8

from recon.cli.opening import MARK, Run, load_scene, open_run, read_georeference
from recon.core.frames import Y_UP_FROM_Z_UP, offset_to_origin, translation, upright_rotation
from recon.errors import ReconError, UsageError
from recon.evaluation.poses import Similarity
from recon.exports import bundler, meshroom, nerfstudio, openmvg
from recon.exports.clouds import Cloud, to_las, to_ply
from recon.exports.georeference import Georeference
from recon.exports.meshes import move_glb, move_obj, to_obj
from recon.exports.scene import (
    Scene,
    SceneView,
    centred_pinhole,
    pairs_of_tracks,
    reconstruction_from_scene,
    same_pinhole,
    square_pinhole,
)
from recon.photos.reading import PhotoError, decode_photo, png_bytes, read_png
from recon.photos.types import Intrinsics, Photo
from recon.sfm.adapter import undistortion_maps
from recon.surface.io import model_from_scene, read_glb

_CameraTest = Callable[[Intrinsics], str | None]
_CameraChange = Callable[[Intrinsics], Intrinsics]
_CAMERA_FORMATS: dict[str, tuple[_CameraTest, _CameraChange]] = {
    "nerfstudio": (nerfstudio.unrepresentable, same_pinhole),
    "openmvg": (openmvg.unrepresentable, square_pinhole),
    "meshroom": (meshroom.unrepresentable, same_pinhole),
    "bundler": (bundler.unrepresentable, centred_pinhole),
}
"""What each format cannot say of a camera, and the camera that replaces such a one."""
_NO_SPACES = {"colmap-text", "openmvs", "bundler"}
"""Formats whose text files end a name at white space."""


@dataclass(frozen=True)
class ExportOptions:
    """What a user can say about an export.

    Attributes:
        photos: where the photos are now; None for where the run found them.
        size: photos as the run used them, or at their full size.
        images: write photos into the export.
        undistort: undistort them.
        georeferenced: move everything into the frame of the georeference.
    """

    photos: Path | None = None
    size: Literal["working", "original"] = "working"
    images: bool = True
    undistort: bool = False
    georeferenced: bool = False


@dataclass(frozen=True)
class ExportReport:
    """What was written, and what the user should know about it."""

    what: str
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def run_export(root: Path, kind: str, target: Path, options: ExportOptions) -> ExportReport:
    """Write one export.

    Args:
        root: a workspace or a folder with a COLMAP model.
        kind: a format.
        target: folder of the export; for ply, las, obj and glb also a file with that suffix.

    Raises:
        ReconError: the run lacks what the format needs, or a photo cannot be read or the target written.
        UsageError: options that contradict each other, or a target that holds something else.
    """
    run = open_run(root)
    georeference = read_georeference(run) if options.georeferenced else None
    job = _Job(run, kind, options, georeference, target.resolve())
    single = kind in ("ply", "las", "obj", "glb")
    if single and target.suffix.lower() == f".{kind}":
        return job.write_file(target)
    with fresh_export(target) as folder:
        what = _WRITERS[kind](job, folder)
        job.write_mark(folder)
        names = sorted(path.name for path in folder.iterdir())
    return ExportReport(what, tuple(target / name for name in names), tuple(job.notes))


class _Job:
    """One export under way."""

    def __init__(
        self,
        run: Run,
        kind: str,
        options: ExportOptions,
        georeference: Georeference | None,
        target: Path,
    ) -> None:
        self.run, self.kind, self.options, self.georeference = run, kind, options, georeference
        self.target = target
        self.notes: list[str] = []
        self.names: dict[str, str] = {}
        self._base = load_scene(run)
        if georeference is None:
            self.offset = offset_to_origin(np.array([view.center for view in self._base.views]))
            self.similarity = Similarity(1.0, np.eye(3), -self.offset)
        else:
            self.offset = np.array(georeference.offset)
            self.similarity = georeference.similarity
        if georeference is None and self.offset.any():
            shown = " ".join(f"{value:.10g}" for value in self.offset)
            self.notes.append(f"large coordinates: the offset {shown} is taken away, {MARK} keeps it")
        self._sizes: dict[str, tuple[int, int]] = {}

    # Cameras and photos

    def scene(self) -> Scene:
        """The scene in the frame and at the size that the user wants; names as in the run."""
        scene = self._base
        if self.options.size == "original" or not self.run.photos:
            scene = scene.resized(self._original_size)
        moved = self.similarity
        return scene.moved(moved.scale, moved.rotation, moved.translation)

    def prepared(self, folder: Path, images: str = "images") -> Scene:
        """The scene as the format can say it, with its photos written below ``folder/images``."""
        scene = self.scene()
        target = self._target_cameras(scene)
        if target is not None:
            before, scene = scene, scene.undistorted(target)
        else:
            before = scene
        if self.options.images:
            return self._write_images(before, scene, folder, images)
        taken: set[str] = set()
        self.names = {view.name: self._free_name(view.name, taken) for view in scene.views}
        return scene.renamed(self.names)

    def _target_cameras(self, scene: Scene) -> Callable[[Intrinsics], Intrinsics] | None:
        """What cameras become that are to be undistorted or that the format cannot say; None if all stay."""
        unrepresentable, fitting = _CAMERA_FORMATS.get(self.kind, (None, same_pinhole))
        wanted = same_pinhole if self.options.undistort else None
        as_wanted = [wanted(camera) if wanted else camera for camera in scene.cameras]
        problems = {unrepresentable(camera) for camera in as_wanted} - {None} if unrepresentable else set()
        if not problems:
            return wanted
        shown = ", ".join(sorted(str(one) for one in problems))
        if not self.options.images:
            raise UsageError(
                f"{self.kind} cannot say what these cameras have: {shown}; leave out --no-images, so that the "
                "photos are changed to fit"
            )
        self.notes.append(
            f"{self.kind} cannot say what these cameras have ({shown}): the photos were resampled"
        )

        def target(camera: Intrinsics) -> Intrinsics:
            if wanted is not None:
                camera = wanted(camera)
            return fitting(camera) if unrepresentable and unrepresentable(camera) else camera

        return target

    def _original_size(self, view: SceneView) -> tuple[int, int]:
        photo = self.run.photos.get(view.name)
        if photo is not None:
            return photo.original_width, photo.original_height
        if view.name not in self._sizes:
            if not self.options.images:
                raise _UnsizedError()
            rgb, _ = self._original(view.name)
            self._sizes[view.name] = (rgb.shape[1], rgb.shape[0])
        return self._sizes[view.name]

    def _photo_file(self, name: str) -> Path:
        folder = self.options.photos or self.run.source
        if folder is None:
            raise ReconError(f"{self.run.root}: does not say where the photos are; give --photos DIR")
        path = folder / name
        if not path.is_file():
            raise ReconError(f"{path}: the photo is not there (any more); give --photos DIR")
        return path

    def _original(self, name: str) -> tuple[UInt8[np.ndarray, "h w 3"], int]:
        path = self._photo_file(name)
        try:
            decoded = decode_photo(path)
        except PhotoError as error:
            raise ReconError(f"{path}: {error}") from error
        return decoded.pixels.rgb, decoded.exif.orientation

    def _pixels(
        self, view: SceneView, camera: Intrinsics
    ) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"] | None, Path | None]:
        """Pixels and mask at the camera's size, and the file that holds exactly these pixels (or None)."""
        photo = self.run.photos.get(view.name)
        mask: np.ndarray | None = None
        if photo is not None and photo.has_mask:
            mask = read_png(self._stored(photo, mask=True))[:, :, 0] >= 128
            if mask.shape != (camera.height, camera.width):
                small = mask.astype(np.uint8)
                mask = cv2.resize(
                    small, (camera.width, camera.height), interpolation=cv2.INTER_NEAREST
                ).astype(bool)
        if photo is not None and self.options.size == "working":
            return read_png(self._stored(photo)), mask, None
        rgb, orientation = self._original(view.name)
        if rgb.shape[:2] != (camera.height, camera.width):
            raise ReconError(
                f"{self._photo_file(view.name)}: is {rgb.shape[1]}x{rgb.shape[0]} pixels, "
                f"the run saw {camera.width}x{camera.height}; give the same photos with --photos DIR"
            )
        return rgb, mask, self._photo_file(view.name) if orientation == 1 else None

    def _stored(self, photo: Photo, mask: bool = False) -> Path:
        from recon.stages.photos import FOLDER, file_name, mask_name

        return self.run.root / FOLDER / (mask_name(photo.name) if mask else file_name(photo.name))

    def _write_images(self, before: Scene, after: Scene, folder: Path, images: str) -> Scene:
        maps: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        taken: set[str] = set()
        some_masked = before is not after and before.cameras != after.cameras
        some_masked |= any(one.has_mask for one in self.run.photos.values())
        views = []
        for old, view in zip(before.views, after.views, strict=True):
            source, target = before.intrinsics(old), after.intrinsics(view)
            rgb, mask, file = self._pixels(old, source)
            if source != target:
                if view.camera not in maps:
                    size = (target.width, target.height)
                    maps[view.camera] = undistortion_maps(source, target.K, size)
                map_x, map_y = maps[view.camera]
                rgb = cv2.remap(rgb, map_x, map_y, cv2.INTER_CUBIC)
                valid = np.ones(rgb.shape[:2], np.uint8) if mask is None else mask.astype(np.uint8)
                valid = cv2.remap(valid, map_x, map_y, cv2.INTER_NEAREST, borderValue=0)
                mask = None if valid.all() else valid.astype(bool)
                file = None
            name = self._free_name(
                old.name if file is not None else str(PurePosixPath(old.name).with_suffix(".png")), taken
            )
            path = folder / images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if file is not None:
                shutil.copyfile(file, path)
            else:
                path.write_bytes(png_bytes(rgb))
            mask_name = None
            if self.kind == "nerfstudio" and (mask is not None or some_masked):
                mask = np.ones(rgb.shape[:2], bool) if mask is None else mask  # it wants all masks or none
                mask_name = str(PurePosixPath("masks") / PurePosixPath(name).with_suffix(".png"))
                (folder / mask_name).parent.mkdir(parents=True, exist_ok=True)
                (folder / mask_name).write_bytes(png_bytes(mask))
            elif mask is not None and self.kind in ("colmap", "colmap-text", "openmvs"):
                mask_path = folder / "masks" / f"{name}.png"  # COLMAP's way to name them
                mask_path.parent.mkdir(parents=True, exist_ok=True)
                mask_path.write_bytes(png_bytes(mask))
            self.names[old.name] = name
            views.append(replace(view, name=name, mask=mask_name))
        return replace(after, views=tuple(views))

    def _free_name(self, name: str, taken: set[str]) -> str:
        """A name that the format can say and no other photo has."""
        if self.kind in _NO_SPACES:
            name = "_".join(name.split())
        # OpenMVG keeps the features of a photo under its bare name, whatever folder it is in.
        bare = self.kind == "openmvg" and self.options.images
        path = PurePosixPath(name)
        number = 1
        while (key := (PurePosixPath(name).stem if bare else name).lower()) in taken:
            number += 1
            name = str(path.with_name(f"{path.stem}_{number}{path.suffix}"))
        taken.add(key)
        return name

    def photo_root(self) -> str:
        """Folder of the photos as an absolute path: some programs look from wherever they are started."""
        if self.options.images:
            return (self.target / "images").as_posix()
        folder = self.options.photos or self.run.source
        return folder.resolve().as_posix() if folder is not None else ""

    # Points and meshes

    def cloud(self) -> Cloud:
        """The dense points in the frame that the user wants; the sparse ones, with a note, if there are none."""
        from recon.surface.io import read_points_ply

        path = self.run.root / "dense" / "points.ply"
        if path.is_file():
            points = read_points_ply(path)
            cloud = Cloud(points.xyz.astype(np.float64), points.normals, points.rgb)
        else:
            scene = self._base
            if not len(scene.xyz):
                raise ReconError(
                    f"{self.run.root}: has no points, neither dense/points.ply nor in {self.run.model}"
                )
            self.notes.append(
                f"{path} is missing: these are the {len(scene.xyz)} sparse points, without normals; run "
                "'recon reconstruct' as far as stage fuse for the dense ones"
            )
            cloud = Cloud(scene.xyz, np.zeros((len(scene.xyz), 3), np.float32), scene.rgb)
        finite = cloud.finite()
        if len(finite) < len(cloud):
            self.notes.append(f"{len(cloud) - len(finite)} points without numbers were left out")
        moved = self.similarity
        return finite.moved(moved.scale, moved.rotation, moved.translation)

    def mesh_file(self, suffix: str) -> tuple[Path, bool]:
        """The mesh to export, and whether it is in the format already: the textured one, if there is one.

        Raises:
            ReconError: there is none.
        """
        made = sorted(
            (self.run.root / "mesh").glob(f"*{suffix}"), key=lambda one: ("textur" not in one.name, one)
        )
        if made:
            return made[0], True
        plain = self.run.root / "mesh" / "mesh.ply"
        if plain.is_file():
            return plain, False
        raise ReconError(f"{plain}: there is no mesh yet; run 'recon reconstruct' as far as stage mesh")

    def frame(self) -> np.ndarray:
        """4x4 from the model to the frame that the user wants."""
        return self.similarity.matrix

    def remarks(self) -> tuple[str, ...]:
        """Lines that say in the file itself which frame it is in."""
        facts = self.facts()
        offset = " ".join(f"{value:.10g}" for value in self.offset)
        return ((f"crs {facts['crs']}",) if "crs" in facts else ()) + ((f"offset {offset}",) if facts else ())

    def facts(self) -> dict[str, Any]:
        """The reference system, and the offset that is to be added; nothing if neither is there."""
        facts: dict[str, Any] = {}
        if self.georeference is not None:
            crs = self.georeference.crs
            facts["crs"] = f"EPSG:{crs.epsg}" if crs.epsg else crs.kind
        if facts or self.offset.any():
            facts["offset"] = self.offset.tolist()
        return facts

    # Writing

    def write_file(self, path: Path) -> ExportReport:
        """A format of one file, straight to the user's path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as name:
            folder = Path(name)
            what = _WRITERS[self.kind](self, folder)
            made = next(one for one in sorted(folder.iterdir()) if one.suffix == f".{self.kind}")
            moved = []
            for one in sorted(folder.iterdir()):
                if one == made:
                    one.replace(path)
                    moved.append(path)
                elif self.kind == "obj":
                    one.replace(path.parent / one.name)
                    moved.append(path.parent / one.name)
        return ExportReport(what, tuple(moved), tuple(self.notes))

    def write_mark(self, folder: Path) -> None:
        """What this folder is, and which photo became which file."""
        changed = {old: new for old, new in self.names.items() if old != new}
        data: dict[str, Any] = {
            "format": self.kind,
            "source": str(self.run.root.resolve()),
            "photo_size": self.options.size,
            "georeferenced": self.georeference is not None,
            "renamed_photos": changed,
            **self.facts(),
        }
        if self.georeference is not None:
            data["georeference"] = self.georeference.to_json()
        (folder / MARK).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class _UnsizedError(ReconError):
    def __init__(self) -> None:
        super().__init__(
            "--no-images --size original needs a workspace: a bare COLMAP model does not know the photos' size"
        )


# One writer per format; each returns what it wrote in words


def _colmap(job: _Job, folder: Path, text: bool = False) -> str:
    scene = job.prepared(folder)
    target = folder / "sparse" / "0"
    target.mkdir(parents=True)
    model = reconstruction_from_scene(scene)
    if text:
        model.write_text(target)
    else:
        model.write_binary(target)
    return _count(scene)


def _colmap_text(job: _Job, folder: Path) -> str:
    return _colmap(job, folder, text=True)


def _nerfstudio(job: _Job, folder: Path) -> str:
    scene = job.prepared(folder)
    if job.options.images:
        scene = scene.renamed({view.name: f"images/{view.name}" for view in scene.views})
    points = None
    if len(scene.xyz):
        points = "points.ply"
        cloud = Cloud(scene.xyz, np.zeros((len(scene.xyz), 3), np.float32), scene.rgb)
        (folder / points).write_bytes(to_ply(cloud, job.remarks()))
    _write_json(folder / nerfstudio.FILE, nerfstudio.to_transforms(scene, points))
    return _count(scene)


def _openmvg(job: _Job, folder: Path) -> str:
    scene = job.prepared(folder)
    _write_json(folder / openmvg.FILE, openmvg.to_sfm_data(scene, job.photo_root()))
    pairs = _database_pairs(job.run, scene, job.names) or pairs_of_tracks(scene)
    matches = folder / "matches"
    matches.mkdir()
    (matches / openmvg.MATCHES).write_text(openmvg.to_matches(pairs), encoding="ascii")
    taken: set[str] = set()
    for view in scene.views:
        stem = PurePosixPath(view.name).stem
        if stem.lower() in taken:
            job.notes.append(
                f"two photos are called {stem}: OpenMVG keeps features by that name, only one has some"
            )
            continue
        taken.add(stem.lower())
        (matches / f"{stem}.feat").write_text(openmvg.to_features(view), encoding="ascii")
    return f"{_count(scene)}, matches of {len(pairs)} pairs"


def _openmvs(job: _Job, folder: Path) -> str:
    """Undistorted photos and a pinhole model, by COLMAP itself."""
    if not job.options.images:
        raise UsageError("openmvs is made of undistorted photos: leave out --no-images")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as name:
        raw = Path(name)
        scene = job.prepared(raw)
        (raw / "model").mkdir()
        reconstruction_from_scene(scene).write_binary(raw / "model")
        pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value
        pycolmap.undistort_images(folder, raw / "model", raw / "images")
        if (raw / "masks").is_dir():
            job.notes.append("masks are not carried over: OpenMVS has them in a form of its own")
    sparse = folder / "sparse"
    if not any(sparse.glob("cameras.*")):
        raise ReconError(f"{sparse}: COLMAP wrote no undistorted model")
    pycolmap.Reconstruction(sparse).write_text(sparse)  # InterfaceCOLMAP before OpenMVS 2 reads nothing else
    return f"{_count(scene)}; next: InterfaceCOLMAP -i DIR -o DIR/scene.mvs --image-folder DIR/images"


def _bundler(job: _Job, folder: Path) -> str:
    scene = job.prepared(folder)
    if job.options.images:
        scene = scene.renamed({view.name: f"images/{view.name}" for view in scene.views})
    (folder / bundler.BUNDLE).write_text(bundler.to_bundle(scene), encoding="ascii")
    (folder / bundler.LIST).write_text(bundler.to_list(scene), encoding="utf-8")
    return _count(scene)


def _meshroom(job: _Job, folder: Path) -> str:
    scene = job.prepared(folder)
    root = job.photo_root()
    paths = {view.name: f"{root}/{view.name}" for view in scene.views} if root else {}
    _write_json(folder / meshroom.FILE, meshroom.to_sfm(scene, paths))
    return _count(scene)


def _ply(job: _Job, folder: Path) -> str:
    cloud = job.cloud()
    (folder / "points.ply").write_bytes(to_ply(cloud, job.remarks()))
    return f"{len(cloud)} points"


def _las(job: _Job, folder: Path) -> str:
    cloud = job.cloud()
    epsg = job.georeference.crs.epsg if job.georeference is not None else None
    if job.georeference is None:
        job.notes.append("without --georeferenced: coordinates are those of the run, no reference system")
    data = to_las(cloud, job.offset, epsg, created=datetime.date.today())
    (folder / "points.las").write_bytes(data)
    return f"{len(cloud)} points"


def _obj(job: _Job, folder: Path) -> str:
    from recon.surface.io import read_mesh

    source, textured = job.mesh_file(".obj")
    if textured:
        text = source.read_text(encoding="utf-8")
        for name in _companions(source, text):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.parent / name, folder / name)
        (folder / "mesh.obj").write_text(move_obj(text, job.frame(), job.remarks()), encoding="utf-8")
        faces = sum(line.startswith("f ") for line in text.splitlines())
        return f"textured mesh of {faces} faces"
    job.notes.append("the mesh has no texture, its vertices have colours")
    mesh, matrix = read_mesh(source), job.frame()
    linear = matrix[:3, :3]
    rotation = linear / np.cbrt(np.linalg.det(linear))
    normals = np.asarray(mesh.vertex_normals) @ rotation.T if mesh.has_vertex_normals() else None
    colors = np.asarray(mesh.vertex_colors) if mesh.has_vertex_colors() else None
    vertices = np.asarray(mesh.vertices, np.float64) @ linear.T + matrix[:3, 3]
    with (folder / "mesh.obj").open("w", encoding="ascii") as stream:
        for part in to_obj(vertices, np.asarray(mesh.triangles), normals, colors, job.remarks()):
            stream.write(part)
    return f"mesh of {len(mesh.triangles)} faces"


def _glb(job: _Job, folder: Path) -> str:
    from recon.surface.io import read_mesh, write_mesh

    source, textured = job.mesh_file(".glb")
    if textured:
        data = source.read_bytes()
    else:
        job.notes.append("the mesh has no texture, its vertices have colours")
        mesh = read_mesh(source)
        offset = offset_to_origin(np.asarray(mesh.vertices)[::100])
        mesh.translate(-offset)  # its vertices become single precision
        write_mesh(folder / "mesh.glb", mesh)
        data = move_glb((folder / "mesh.glb").read_bytes(), translation(offset))
    matrix = job.frame() @ model_from_scene(read_glb(data)[0])
    turn = np.eye(4)
    turn[:3, :3] = Y_UP_FROM_Z_UP
    if job.georeference is None:
        # glTF says y is up; the run's frame is anything, but the photos know.
        try:
            turn[:3, :3] = upright_rotation(
                np.array([view.cam_from_world[:, :3] for view in job.scene().views])
            )
        except ValueError as error:
            job.notes.append(f"{error}: the mesh is not turned upright")
    (folder / "mesh.glb").write_bytes(move_glb(data, turn @ matrix, job.facts(), fresh=True))
    return "mesh, y up"


_WRITERS: dict[str, Callable[[_Job, Path], str]] = {
    "colmap": _colmap,
    "colmap-text": _colmap_text,
    "nerfstudio": _nerfstudio,
    "openmvg": _openmvg,
    "openmvs": _openmvs,
    "bundler": _bundler,
    "meshroom": _meshroom,
    "ply": _ply,
    "las": _las,
    "obj": _obj,
    "glb": _glb,
}


def _companions(source: Path, text: str) -> list[str]:
    """Files that an OBJ needs beside it: its material libraries and their pictures."""
    names = [line.split(maxsplit=1)[1].strip() for line in text.splitlines() if line.startswith("mtllib ")]
    found = []
    for name in names:
        path = source.parent / name
        if not path.is_file():
            raise ReconError(f"{path}: is missing, {source} needs it")
        found.append(name)
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.strip().split(maxsplit=1)
            if len(words) == 2 and words[0].lower().startswith("map_"):
                found.append(words[1].strip())
    return [name for name in dict.fromkeys(found) if (source.parent / name).is_file()]


def _database_pairs(run: Run, scene: Scene, names: dict[str, str]) -> dict[tuple[int, int], np.ndarray]:
    """Verified matches of the run's database, by rows of views; nothing if it does not fit the model."""
    path = run.root / "database.db"
    if not path.is_file():
        return {}
    row = {view.name: index for index, view in enumerate(scene.views)}
    found: dict[tuple[int, int], np.ndarray] = {}
    with pycolmap.Database.open(path) as database:
        rows: dict[int, int] = {}
        for image in database.read_all_images():
            index = row.get(names.get(image.name, image.name))
            if index is None:
                continue
            if len(database.read_keypoints(image.image_id)) != len(scene.views[index].keypoints):
                return {}
            rows[image.image_id] = index
        ids = sorted(rows)
        for i, a in enumerate(ids):
            for b in ids[i + 1 :]:
                if not database.exists_two_view_geometry(a, b):
                    continue
                matches = np.asarray(database.read_two_view_geometry(a, b).inlier_matches, np.int64)
                if not len(matches):
                    continue
                pair = (rows[a], rows[b])
                found[min(pair), max(pair)] = matches if pair[0] < pair[1] else matches[:, ::-1]
    return found


def _count(scene: Scene) -> str:
    return f"{len(scene.views)} photos, {len(scene.cameras)} cameras, {len(scene.xyz)} points"


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def fresh_export(target: Path) -> Iterator[Path]:
    """A new folder that replaces the target when the block ends well; only an earlier export is replaced."""
    if target.exists() and not (target.is_dir() and ((target / MARK).is_file() or not any(target.iterdir()))):
        raise UsageError(f"{target}: holds something that is not an export; choose another --out")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ReconError(f"{target}: cannot be written ({error.strerror}); choose another --out") from error
    try:
        folder.chmod(0o755)
        yield folder
        if target.exists():
            shutil.rmtree(target)
        folder.replace(target)
    except OSError as error:
        raise ReconError(f"{target}: cannot be written ({error}); choose another --out") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
