"""Inputs that the user gave to a run from outside of its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from recon.errors import ReconError, UsageError
from recon.photos.cameras import CameraSharing
from recon.photos.reading import IMAGE_NAMES
from recon.photos.scanning import Found, find_masks, find_photos


@dataclass(frozen=True)
class RunInputs:
    """Photos, and what is known of them.

    Attributes:
        photos: files and folders, as the user named them.
        frames: frames to take of each film.
        intrinsics: path of a ``cameras.json`` or ``cameras.txt``, or "fx,fy,cx,cy".
        masks: folder of masks.
        camera_sharing: "auto", "single" or "per-photo"; None for what the recipe says.
        field_cache: folder in which runs of the same photos share their dense fields.
    """

    photos: tuple[str, ...] = ()
    frames: int | None = None
    intrinsics: str | None = None
    masks: str | None = None
    camera_sharing: str | None = None
    field_cache: str | None = None

    @property
    def places(self) -> str:
        """The photos' places, for people."""
        return ", ".join(self.photos)

    def described(self) -> dict[str, Any]:
        """The inputs that were given, by name, as the manifest keeps them."""
        photos = self.photos[0] if len(self.photos) == 1 else str(self.photos)
        rest = ("frames", "intrinsics", "masks", "camera_sharing", "field_cache")
        given = {name: getattr(self, name) for name in rest}
        return {"photos": photos} | {name: value for name, value in given.items() if value is not None}

    def find(self, workspace: Path) -> Found:
        """Find the photos and films; the workspace and the masks may lie inside the photo folder.

        Raises:
            ReconError: there are none.
        """
        exclude = [workspace, *([Path(self.masks)] if self.masks else [])]
        found = find_photos(list(self.photos), exclude)
        if not found.photos and not found.films:
            text = f"{self.places}: holds no photos and no film; read are {IMAGE_NAMES}"
            for one in found.passed_over[:5]:
                text += f"\n  {one.name}: {one.reason}"
            raise ReconError(text)
        return found

    def masks_of(self, found: Found) -> dict[str, Path]:
        """The masks of the folder that the user gave, else those that lie beside the photos, by photo name."""
        return find_masks(Path(self.masks), found.photos) if self.masks else dict(found.masks)

    def intrinsics_files(self) -> list[Path]:
        """The files that ``intrinsics`` names."""
        if not self.intrinsics:
            return []
        path = Path(self.intrinsics).expanduser()
        return [one for one in (path, path.with_name("images.txt")) if one.is_file()]

    def files(self, found: Found) -> list[tuple[str, str, Path]]:
        """Every file that the run reads: its kind, its name and its path."""
        listed = [("photo", one.name, one.path) for one in found.photos]
        listed += [("film", one.name, one.path) for one in found.films]
        listed += [("mask", name, path) for name, path in sorted(self.masks_of(found).items())]
        return listed + [("intrinsics", path.name, path) for path in self.intrinsics_files()]

    def sharing(self) -> CameraSharing | None:
        """The user's word on which photos share a camera, which goes before the recipe.

        Raises:
            UsageError: there is no such way.
        """
        for choice in get_args(CameraSharing):
            if self.camera_sharing == choice:
                return choice
        if self.camera_sharing is not None:
            choices = ", ".join(get_args(CameraSharing))
            raise UsageError(f"--camera-sharing {self.camera_sharing}: it is one of {choices}")
        return None
