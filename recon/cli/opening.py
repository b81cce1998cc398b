"""A run as commands open it: a workspace, or any folder with a COLMAP model and photos beside it."""

from __future__ import annotations

import json
from pathlib import Path

from recon.errors import ReconError, UsageError
from recon.exports.files import MARK
from recon.exports.source import Run
from recon.io.manifest import read_manifest
from recon.photos.types import Photo
from recon.run.photos import PHOTO_SET, PHOTOS, mask_file, photo_file, photo_set_from_json


def open_run(root: Path) -> Run:
    """A workspace, or a folder that is or holds a COLMAP model.

    Raises:
        ReconError: there is no model.
    """
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; give a workspace or a folder with a COLMAP model")
    model = next(
        (
            folder
            for folder in (root / "sparse" / "0", root / "sparse", root)
            if any((folder / f"images{suffix}").is_file() for suffix in (".bin", ".txt"))
        ),
        None,
    )
    if model is None:
        raise ReconError(
            f"{root}: has no cameras yet (sparse/0 is missing); run 'recon reconstruct' as far as stage map"
        )
    photos: dict[str, Photo] = {}
    source, pictures, masks = None, {}, {}
    manifest = read_manifest(root)
    if manifest is not None and (root / PHOTO_SET).is_file():
        try:
            photo_set = photo_set_from_json(json.loads((root / PHOTO_SET).read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise ReconError(
                f"{root / PHOTO_SET}: is damaged; run again with --restart-from photos"
            ) from error
        photos = {photo.name: photo for photo in photo_set.photos}
        source = Path(manifest.source) if manifest.source else None
        folder = root / PHOTOS
        pictures = {name: folder / photo_file(name) for name in photos}
        masks = {name: folder / mask_file(name) for name, photo in photos.items() if photo.has_mask}
    elif (root / "images").is_dir():
        source = root / "images"
    elif (root / MARK).is_file():  # what 'recon import' made knows where the photos are
        try:
            noted = json.loads((root / MARK).read_text(encoding="utf-8")).get("photos")
        except ValueError:
            noted = None
        source = Path(noted) if noted else None
    return Run(root, model, photos, source, pictures, masks)
