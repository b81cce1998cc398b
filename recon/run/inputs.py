"""What the user gave to a run from outside of its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


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

    @property
    def mask_folder(self) -> Path | None:
        """The folder of masks, None without."""
        return Path(self.masks) if self.masks else None

    def described(self) -> dict[str, Any]:
        """The inputs that were given, by name, as the manifest keeps them."""
        photos = self.photos[0] if len(self.photos) == 1 else str(self.photos)
        rest = ("frames", "intrinsics", "masks", "camera_sharing", "field_cache")
        given = {name: getattr(self, name) for name in rest}
        return {"photos": photos} | {name: value for name, value in given.items() if value is not None}
