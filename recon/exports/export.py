"""One export under way: the scene, photos, points and mesh in the frame, at the size and under the names wanted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from recon.core.cameras import Intrinsics
from recon.core.colmap import read_reconstruction
from recon.core.frames import offset_to_origin
from recon.core.mesh import PointCloud
from recon.core.similarity import Similarity3
from recon.core.undistort import undistortion_maps
from recon.errors import ReconError, UsageError
from recon.exports.files import MARK, write_json
from recon.exports.georeference import Georeference
from recon.exports.options import ExportOptions
from recon.exports.precision import PointPrecision, read_precision, sigma_of_cloud
from recon.exports.scene import Scene, SceneView, scene_from_reconstruction
from recon.exports.source import load_scene, photo_folder
from recon.io.pictures import encode_picture
from recon.io.surfaces import read_points_ply
from recon.photos.reading import PhotoError, decode_photo
from recon.run.folder import ADJUSTED, PRECISION, RunFolder
from recon.run.state import refuse_old


@dataclass(frozen=True)
class Format:
    """A format that can be exported.

    Attributes:
        write: writes it into a folder; returns what it wrote in words.
        unrepresentable: what of a camera it cannot say, None if it can say all.
        fitting: the camera that replaces one that it cannot say.
        one_word_names: its text files end a name at white space.
        bare_names: it keeps the features of a photo under its bare name, whatever folder it is in.
        masks: how it wants masks: not at all, as COLMAP names them, or of all photos if of any.
        single_file: the suffix of formats that are one file.
    """

    write: Callable[[Export, Path], str]
    unrepresentable: Callable[[Intrinsics], str | None] | None = None
    fitting: Callable[[Intrinsics], Intrinsics] = Intrinsics.pinhole
    one_word_names: bool = False
    bare_names: bool = False
    masks: Literal["none", "colmap", "all"] = "none"
    single_file: str = ""


class Export:
    """One export under way.

    Attributes:
        target: where the export will be in the end.
        notes: what the user should know.
        names: what photos are called in the export.
        offset: what was taken away from coordinates.
    """

    def __init__(
        self,
        run: RunFolder,
        kind: str,
        format: Format,
        options: ExportOptions,
        georeference: Georeference | None,
        target: Path,
    ) -> None:
        self.run, self.kind, self.format, self.options = run, kind, format, options
        self.georeference, self.target = georeference, target
        self.notes: list[str] = []
        self.names: dict[str, str] = {}
        self._base = load_scene(run)
        if georeference is None:
            self.offset = offset_to_origin(np.array([view.center for view in self._base.views]))
            self.similarity = Similarity3(1.0, np.eye(3), -self.offset)
        else:
            self.offset = np.array(georeference.offset)
            self.similarity = georeference.similarity
            if georeference.bend is not None and run.path(ADJUSTED).is_dir():
                self._base = scene_from_reconstruction(read_reconstruction(run.path(ADJUSTED)))
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

    def prepared(self, folder: Path) -> Scene:
        """The scene as the format can say it, with its photos written below ``folder/images``."""
        before = scene = self.scene()
        target = self._target_cameras(scene)
        if target is not None:
            scene = scene.undistorted(target)
        if self.options.images:
            return self._write_images(before, scene, folder)
        taken: set[str] = set()
        self.names = {view.name: self._free_name(view.name, taken) for view in scene.views}
        return scene.renamed(self.names)

    def with_folder(self, scene: Scene) -> Scene:
        """Names of photos as they are seen from the export's folder."""
        if not self.options.images:
            return scene
        return scene.renamed({view.name: f"images/{view.name}" for view in scene.views})

    def photo_root(self) -> str:
        """Folder of the photos as an absolute path: some programs look from wherever they are started."""
        if self.options.images:
            return (self.target / "images").as_posix()
        folder = self.options.photos or photo_folder(self.run)
        return folder.resolve().as_posix() if folder is not None else ""

    def _target_cameras(self, scene: Scene) -> Callable[[Intrinsics], Intrinsics] | None:
        """New cameras for those that are to be undistorted or that the format cannot hold; None if all stay."""
        unrepresentable = self.format.unrepresentable
        wanted = Intrinsics.pinhole if self.options.undistort else None
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
            return self.format.fitting(camera) if unrepresentable and unrepresentable(camera) else camera

        return target

    def _original_size(self, view: SceneView) -> tuple[int, int]:
        photo = self.run.photos.get(view.name)
        if photo is not None:
            return photo.original_width, photo.original_height
        if view.name not in self._sizes:
            if not self.options.images:
                raise ReconError(
                    "--no-images --size original needs a workspace: a bare COLMAP model does not know the photos' size"
                )
            rgb, _ = self._original(view.name)
            self._sizes[view.name] = (rgb.shape[1], rgb.shape[0])
        return self._sizes[view.name]

    def _photo_file(self, name: str) -> Path:
        folder = self.options.photos or photo_folder(self.run)
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
        size = (camera.width, camera.height)
        mask: np.ndarray | None = None
        photo = self.run.photos.get(view.name)
        if photo is not None:
            mask = self.run.mask(photo)
            if mask is not None and mask.shape != size[::-1]:
                mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
        if photo is not None and self.options.size == "working":
            return self.run.rgb(photo), mask, None
        rgb, orientation = self._original(view.name)
        if rgb.shape[:2] != size[::-1]:
            raise ReconError(
                f"{self._photo_file(view.name)}: is {rgb.shape[1]}x{rgb.shape[0]} pixels, "
                f"the run saw {camera.width}x{camera.height}; give the same photos with --photos DIR"
            )
        return rgb, mask, self._photo_file(view.name) if orientation == 1 else None

    def _write_images(self, before: Scene, after: Scene, folder: Path) -> Scene:
        maps: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        taken: set[str] = set()
        some_masked = before is not after and before.cameras != after.cameras
        some_masked |= any(photo.has_mask for photo in self.run.photos.values())
        views = []
        for old, view in zip(before.views, after.views, strict=True):
            source, target = before.intrinsics(old), after.intrinsics(view)
            rgb, mask, file = self._pixels(old, source)
            if source != target:
                if view.camera not in maps:
                    size = (target.width, target.height)
                    maps[view.camera] = undistortion_maps(source, target.K, size)
                rgb, mask = _undistorted(rgb, mask, *maps[view.camera])
                file = None
            png = str(PurePosixPath(old.name).with_suffix(".png"))
            name = self._free_name(png if file is None else old.name, taken)
            path = folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if file is not None:
                shutil.copyfile(file, path)
            else:
                path.write_bytes(encode_picture(rgb))
            self.names[old.name] = name
            if mask is None and some_masked and self.format.masks == "all":
                mask = np.ones(rgb.shape[:2], bool)
            mask_file = self._write_mask(folder, name, mask) if mask is not None else None
            views.append(replace(view, name=name, mask=mask_file))
        return replace(after, views=tuple(views))

    def _write_mask(self, folder: Path, name: str, mask: Bool[np.ndarray, "h w"]) -> str | None:
        """Write a mask as the format wants it; its name, where the scene has to know it."""
        if self.format.masks == "none":
            return None
        whole = PurePosixPath("masks") / f"{name}.png"  # COLMAP's way to name them
        if self.format.masks == "all":
            whole = PurePosixPath("masks") / PurePosixPath(name).with_suffix(".png")
        (folder / whole).parent.mkdir(parents=True, exist_ok=True)
        (folder / whole).write_bytes(encode_picture(mask))
        return str(whole) if self.format.masks == "all" else None

    def _free_name(self, name: str, taken: set[str]) -> str:
        """A name that the format can say and no other photo has."""
        if self.format.one_word_names:
            name = "_".join(name.split())
        bare = self.format.bare_names and self.options.images
        path = PurePosixPath(name)
        number = 1
        while (key := (PurePosixPath(name).stem if bare else name).lower()) in taken:
            number += 1
            name = str(path.with_name(f"{path.stem}_{number}{path.suffix}"))
        taken.add(key)
        return name

    # Points and meshes

    def cloud(self) -> PointCloud:
        """The dense points in the frame that the user wants; the sparse ones, with a note, if there are none."""
        refuse_old(self.run.root, "dense/points.ply")
        path = self.run.root / "dense" / "points.ply"
        if path.is_file():
            cloud = read_points_ply(path)
            return self._placed(replace(cloud, xyz=self.bent(cloud.xyz.astype(np.float64))))
        scene = self._base
        if not len(scene.xyz):
            raise ReconError(
                f"{self.run.root}: has no points, neither dense/points.ply nor in {self.run.model_folder}"
            )
        self.notes.append(
            f"{path} is missing: these are the {len(scene.xyz)} sparse points, without normals; run "
            "'recon reconstruct' as far as stage fuse for the dense ones"
        )
        return self._placed(PointCloud(scene.xyz, rgb=scene.rgb))

    def bent(self, points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """Points of the surface where an adjustment to control points has them, still in the run's frame."""
        bend = None if self.georeference is None else self.georeference.bend
        return points if bend is None else bend(points)

    @cached_property
    def precision(self) -> PointPrecision | None:
        """Precision by the adjustment, for exports in the frame of the georeference."""
        return None if self.georeference is None else read_precision(self.run.path(PRECISION))

    def sigma(self, cloud: PointCloud) -> Float64[np.ndarray, "n 3"] | None:
        """Standard deviations of a cloud's coordinates; None where nothing is known of them."""
        if self.precision is None or self.georeference is None:
            return None
        return sigma_of_cloud(self.precision, load_scene(self.run), self.georeference, cloud.xyz)

    def note_bend(self) -> None:
        """Say of a mesh that is only moved, turned and scaled how far that is from where the adjustment has it."""
        bend = None if self.georeference is None else self.georeference.bend
        if bend is not None:
            off = bend.largest * self.similarity.scale
            self.notes.append(f"the mesh lies within {off:.2g} m of where control points have it")

    def _placed(self, cloud: PointCloud) -> PointCloud:
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
        refuse_old(self.run.root, "mesh/mesh.ply", "mesh/textured.glb", "mesh/textured.obj")
        folder = self.run.root / "mesh"
        made = sorted(folder.glob(f"*{suffix}"), key=lambda one: ("textur" not in one.name, one))
        if made:
            return made[0], True
        plain = folder / "mesh.ply"
        if plain.is_file():
            self.notes.append("the mesh has no texture, its vertices have colours")
            return plain, False
        raise ReconError(f"{plain}: there is no mesh yet; run 'recon reconstruct' as far as stage mesh")

    # What the export says of itself

    def facts(self) -> dict[str, Any]:
        """The reference system, and the offset that is to be added; nothing if neither is there."""
        facts: dict[str, Any] = {}
        if self.georeference is not None:
            crs = self.georeference.crs
            facts["crs"] = f"EPSG:{crs.epsg}" if crs.epsg else crs.kind
        if facts or self.offset.any():
            facts["offset"] = self.offset.tolist()
        return facts

    def remarks(self) -> tuple[str, ...]:
        """Lines that say in the file itself which frame it is in."""
        facts = self.facts()
        offset = " ".join(f"{value:.10g}" for value in self.offset)
        return ((f"crs {facts['crs']}",) if "crs" in facts else ()) + ((f"offset {offset}",) if facts else ())

    def write_mark(self, folder: Path) -> None:
        """Note what this folder is, and which photo became which file."""
        data: dict[str, Any] = {
            "format": self.kind,
            "source": str(self.run.root.resolve()),
            "photo_size": self.options.size,
            "georeferenced": self.georeference is not None,
            "renamed_photos": {old: new for old, new in self.names.items() if old != new},
            **self.facts(),
        }
        if self.georeference is not None:
            data["georeference"] = self.georeference.to_json()
        if self.precision is not None:
            deviations = np.sqrt(np.einsum("nii->ni", self.precision.precision.centres()))
            data["camera_position_deviations"] = {
                name: [round(float(v), 5) for v in row]
                for name, row in zip(self.precision.names, deviations, strict=True)
            }
        write_json(folder / MARK, data)


def _undistorted(
    rgb: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None,
    map_x: np.ndarray,
    map_y: np.ndarray,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"] | None]:
    """A photo and where it may be used after undistortion; no mask where that is everywhere."""
    rgb = cv2.remap(rgb, map_x, map_y, cv2.INTER_CUBIC)
    valid = np.ones(rgb.shape[:2], np.uint8) if mask is None else mask.astype(np.uint8)
    valid = cv2.remap(valid, map_x, map_y, cv2.INTER_NEAREST, borderValue=0)
    return rgb, None if valid.all() else valid.astype(bool)
