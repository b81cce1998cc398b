"""Finding photos and masks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from recon.errors import UsageError
from recon.photos.scanning import PhotoFile, file_sha256, find_masks, scan_folder


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_nested_folders_sorted_by_name_without_what_is_no_photo(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a/2.png", "a/10.tiff", "a/deep/x.webp", "notes.txt", "info.json", ".hidden.jpg")
    touch(tmp_path, ".thumbs/a.jpg", "y.heic")
    assert [one.name for one in scan_folder(tmp_path)] == [
        "a/10.tiff",
        "a/2.png",
        "a/deep/x.webp",
        "b.JPG",
        "y.heic",
    ]


def test_workspaces_and_excluded_folders_are_passed_over(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a.jpg",
        "out/photos/a.jpg.png",
        "out/manifest.json",
        "out/recipe.toml",
        "masks/a.png",
        "new/b.png",
    )
    assert [one.name for one in scan_folder(tmp_path, [tmp_path / "masks", tmp_path / "new"])] == ["a.jpg"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos")
    assert sorted(one.name for one in scan_folder(tmp_path / "photos")) == ["a.jpg", "more/b.jpg"]


def test_wrong_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(UsageError, match="no such folder"):
        scan_folder(tmp_path / "nope")
    with pytest.raises(UsageError, match="is a file"):
        scan_folder(tmp_path / "a.jpg")
    assert scan_folder(tmp_path, []) != ()


def test_masks_in_both_ways_of_naming(tmp_path: Path) -> None:
    touch(tmp_path, "masks/a.png", "masks/x/b.jpg.png", "masks/other.png")
    photos = [PhotoFile(name, tmp_path / name) for name in ("a.jpg", "x/b.jpg", "c.jpg")]
    found = find_masks(tmp_path / "masks", photos)
    assert found == {"a.jpg": tmp_path / "masks/a.png", "x/b.jpg": tmp_path / "masks/x/b.jpg.png"}
    with pytest.raises(UsageError, match="no such folder"):
        find_masks(tmp_path / "nope", photos)
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match=r"no mask for any photo.*a\.png or a\.jpg\.png"):
        find_masks(tmp_path / "none", photos)


def test_hash_of_a_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10000
    (tmp_path / "a").write_bytes(data)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()
