"""Finding photos and masks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.errors import UsageError
from recon.photos.scanning import PhotoFile, find_masks, find_photos, photo_sha256


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_nested_folders_sorted_by_name_without_what_is_no_photo(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a/2.png", "a/10.tiff", "a/deep/x.webp", "notes.txt", "info.json", ".hidden.jpg")
    touch(tmp_path, ".thumbs/a.jpg", "y.heic")
    assert [one.name for one in find_photos([tmp_path]).photos] == [
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
    assert [one.name for one in find_photos([tmp_path], [tmp_path / "masks", tmp_path / "new"]).photos] == [
        "a.jpg"
    ]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos")
    assert sorted(one.name for one in find_photos([tmp_path / "photos"]).photos) == ["a.jpg", "more/b.jpg"]


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
    assert photo_sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_films_raw_twins_copies_and_the_rest(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.DNG", "b.nef", "walk.MP4", "walk.LRV", "notes.txt")
    (tmp_path / "no suffix").write_bytes(b"\xff\xd8\xff\xe0 begins like a JPEG")
    found = find_photos([tmp_path])
    assert [one.name for one in found.photos] == ["a.jpg", "b.nef", "no suffix"]
    assert [one.name for one in found.films] == ["walk.MP4"]
    reasons = {one.name: one.reason for one in found.passed_over}
    assert set(reasons) == {"a.DNG", "walk.LRV", "notes.txt"}
    assert "lies beside it" in reasons["a.DNG"]
    assert "JPEG" in reasons["notes.txt"]


def mask(path: Path, black_and_white: bool = True) -> None:
    values = np.random.default_rng(1).integers(0, 256, (40, 60), dtype=np.uint8)
    if black_and_white:
        values = np.where(values > 128, 255, 0).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.mark.parametrize(
    "name",
    [
        "IMG_0.jpg.png",
        "IMG_0_mask.png",
        "IMG_0-MASK.PNG",
        "IMG_0.mask.png",
        "mask_IMG_0.tif",
        "masks/IMG_0.png",
    ],
)
def test_masks_beside_photos_are_no_photos(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "IMG_0.jpg", "IMG_1.jpg")
    mask(tmp_path / name)
    found = find_photos([tmp_path])
    assert [one.name for one in found.photos] == ["IMG_0.jpg", "IMG_1.jpg"]
    assert found.masks == {"IMG_0.jpg": tmp_path / name}


def test_a_photo_that_is_only_named_like_a_mask_stays_a_photo(tmp_path: Path) -> None:
    touch(tmp_path, "carnival.jpg")
    mask(tmp_path / "carnival_mask.png", black_and_white=False)
    mask(tmp_path / "gas_mask.png")  # of no photo
    assert [one.name for one in find_photos([tmp_path]).photos] == [
        "carnival.jpg",
        "carnival_mask.png",
        "gas_mask.png",
    ]


def test_masks_of_any_case_and_kind_in_their_folder(tmp_path: Path) -> None:
    touch(tmp_path, "masks/IMG_0.PNG", "masks/x/img_1_mask.TIF", "masks/IMG_2.JPG")
    photos = [PhotoFile(name, tmp_path / name) for name in ("IMG_0.jpg", "x/IMG_1.jpg", "IMG_2.jpg")]
    assert find_masks(tmp_path / "masks", photos) == {
        "IMG_0.jpg": tmp_path / "masks/IMG_0.PNG",
        "x/IMG_1.jpg": tmp_path / "masks/x/img_1_mask.TIF",
        "IMG_2.jpg": tmp_path / "masks/IMG_2.JPG",
    }


def test_lists_patterns_and_single_files(tmp_path: Path) -> None:
    touch(tmp_path, "d/a.jpg", "d/b.jpg", "e/c.jpg")
    assert [one.name for one in find_photos([tmp_path / "d" / "a.jpg", tmp_path / "e"]).photos] == [
        "d/a.jpg",
        "e/c.jpg",
    ]
    assert [one.name for one in find_photos([tmp_path / "*" / "[bc].jpg"]).photos] == ["d/b.jpg", "e/c.jpg"]
    (tmp_path / "list.txt").write_text("\ufeffd/b.jpg\n# not this\n  e/c.jpg  \n", encoding="utf-8")
    assert [one.name for one in find_photos([tmp_path / "list.txt"]).photos] == ["d/b.jpg", "e/c.jpg"]
    (tmp_path / "list.txt").write_text("d/b.jpg\nd/none.jpg\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"list\.txt, line 2: .*none\.jpg: there is no such file"):
        find_photos([tmp_path / "list.txt"])
    (tmp_path / "list.txt").write_text("# none\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"list\.txt: no photos are named"):
        find_photos([tmp_path / "list.txt"])
    with pytest.raises(UsageError, match=r"no file has a name like this"):
        find_photos([tmp_path / "*.xyz"])
    with pytest.raises(UsageError, match=r"no photos are named"):
        find_photos([])
