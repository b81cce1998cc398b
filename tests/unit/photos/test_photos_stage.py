"""The stage: what it stores, what it leaves out, what it refuses, when it runs again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from recon.engine.recipe import load_recipe
from recon.engine.runner import RunOptions, RunSummary, run_stages
from recon.engine.stage import StageContext
from recon.errors import ReconError, UsageError
from recon.photos.types import PhotoSet
from recon.run.folder import RunFolder
from recon.run.inputs import RunInputs
from recon.run.photos import photo_set_from_json, photo_set_to_json
from recon.stages.photos import PhotosStage


def save(path: Path, seed: int, size: tuple[int, int] = (200, 120)) -> np.ndarray:
    """A smooth random photo of its own."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return np.asarray(image)


def run(folder: Path, overrides: tuple[str, ...] = (), **inputs: Any) -> RunSummary:
    recipe_file = folder / "recipe.toml"
    recipe_file.write_text("")
    stage = PhotosStage()
    recipe = load_recipe(recipe_file, [stage], "normal", overrides)
    photos = str(folder / "photos")
    options = RunOptions(inputs=RunInputs(**{"photos": (photos,), **inputs}), source=photos, threads=2)
    return run_stages([stage], recipe, folder / "out", options)


def loaded(folder: Path) -> tuple[StageContext, PhotoSet]:
    work = StageContext(folder / "out")
    return work, RunFolder(work.root).photo_set


def left_out(folder: Path) -> dict[str, str]:
    return {one.name: one.reason for one in loaded(folder)[1].left_out}


def test_photos_come_back_in_order_at_working_size(tmp_path: Path) -> None:
    first = save(tmp_path / "photos" / "b.png", 1)
    save(tmp_path / "photos" / "a" / "c.png", 2, (120, 200))
    run(tmp_path, ("photos.max_size=100", "photos.min_side=16"))
    work, photo_set = loaded(tmp_path)
    assert [(p.id, p.name, p.width, p.height) for p in photo_set.photos] == [
        (0, "a/c.png", 60, 100),
        (1, "b.png", 100, 60),
    ]
    assert [(p.original_width, p.original_height) for p in photo_set.photos] == [(120, 200), (200, 120)]
    means = first.reshape(60, 2, 100, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(RunFolder(work.root).rgb(photo_set.photos[1]), means, atol=0.51)
    assert RunFolder(work.root).mask(photo_set.photos[1]) is None
    assert photo_set.cameras[photo_set.photos[1].camera].width == 100


def test_photos_are_never_enlarged(tmp_path: Path) -> None:
    pixels = save(tmp_path / "photos" / "a.png", 1)
    save(tmp_path / "photos" / "b.png", 2)
    run(tmp_path, ("photos.max_size=5000",))
    work, photo_set = loaded(tmp_path)
    np.testing.assert_array_equal(RunFolder(work.root).rgb(photo_set.photos[0]), pixels)


def test_names_that_could_collide_do_not(tmp_path: Path) -> None:
    pixels = {
        name: save(tmp_path / "photos" / name, i)
        for i, name in enumerate(("a/b.png", "a%2Fb.png", "a_b.png"))
    }
    run(tmp_path)
    work, photo_set = loaded(tmp_path)
    assert len({RunFolder(work.root).photo_png(photo.name) for photo in photo_set.photos}) == 3
    for photo in photo_set.photos:
        np.testing.assert_array_equal(RunFolder(work.root).rgb(photo), pixels[photo.name])


def test_everything_unusable_is_left_out_with_its_reason(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for index in range(3):
        save(photos / f"good{index}.jpg", index)
    data = (photos / "good0.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(data[: len(data) // 2])
    (photos / "text.jpg").write_text("not a photo")
    (photos / "twin.jpg").write_bytes(data)
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(photos / "dot.png")
    save(photos / "band.png", 7, (20000, 200))
    # The same pixels in another container are the same content too.
    with Image.open(photos / "good1.jpg") as image:
        image.save(photos / "z-copy.png")
    summary = run(tmp_path)
    reasons = left_out(tmp_path)
    assert set(reasons) == {"cut.jpg", "text.jpg", "twin.jpg", "dot.png", "band.png", "z-copy.png"}
    assert "cut short" in reasons["cut.jpg"]
    assert "text file" in reasons["text.jpg"]
    assert reasons["twin.jpg"] == "has the same content as good0.jpg"
    assert reasons["z-copy.png"] == "has the same content as good1.jpg"
    assert "1x1" in reasons["dot.png"]
    assert "20000x200" in reasons["band.png"]
    assert "1024x10" in reasons["band.png"]
    assert summary.counts("photos")["left_out"] == 6
    assert len(summary.warnings) == 6
    assert len(list((tmp_path / "out" / "photos").iterdir())) == 3


def test_one_usable_photo_is_not_enough(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png", 1)
    (tmp_path / "photos" / "text.jpg").write_text("not a photo")
    with pytest.raises(ReconError, match=r"(?s)only one photo can be used.*text\.jpg: is a text file"):
        run(tmp_path)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"photos: there is no such file or folder"):
        run(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "readme.txt").write_text("hello")
    with pytest.raises(ReconError, match=r"(?s)photos: holds no photos.*JPEG.*readme\.txt"):
        run(tmp_path)


def test_masks_of_files_and_of_alpha_are_combined(tmp_path: Path) -> None:
    pixels = save(tmp_path / "photos" / "a.png", 1)
    alpha = np.full(pixels.shape[:2], 255, np.uint8)
    alpha[:, :50] = 0
    Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "photos" / "a.png")
    save(tmp_path / "photos" / "b.jpg", 2)
    keep = np.zeros(pixels.shape[:2], bool)
    keep[40:, :] = True
    (tmp_path / "masks").mkdir()
    Image.fromarray(keep).save(tmp_path / "masks" / "a.png.png")
    run(tmp_path, masks=str(tmp_path / "masks"))
    work, photo_set = loaded(tmp_path)
    mask = RunFolder(work.root).mask(photo_set.photos[0])
    assert mask is not None
    np.testing.assert_array_equal(mask, keep & (alpha > 0))
    assert [photo.has_mask for photo in photo_set.photos] == [True, False]


def test_mask_of_the_wrong_size_stops_the_run(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png", 1)
    save(tmp_path / "photos" / "b.png", 2)
    (tmp_path / "photos" / "masks").mkdir()
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "photos" / "masks" / "a.png")
    with pytest.raises(ReconError, match=r"a\.png: the mask is 10x10 pixels, its photo is 200x120"):
        run(tmp_path, masks=str(tmp_path / "photos" / "masks"))


def test_mask_that_leaves_nothing(tmp_path: Path) -> None:
    for index, name in enumerate("abc"):
        save(tmp_path / "photos" / f"{name}.png", index)
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros((120, 200), np.uint8)).save(tmp_path / "masks" / "a.png")
    run(tmp_path, masks=str(tmp_path / "masks"))
    assert left_out(tmp_path) == {"a.png": "its mask leaves nothing of it"}


def test_intrinsics_arrive_at_working_size_and_missing_ones_are_warned_of(tmp_path: Path) -> None:
    for index, name in enumerate("abc"):
        save(tmp_path / "photos" / f"{name}.png", index)
    entry = {"width": 400, "height": 240, "fx": 500, "fy": 500, "cx": 199.5, "cy": 119.5}
    file = tmp_path / "cameras.json"
    file.write_text(json.dumps({"images": [{"name": f"{name}.png", **entry} for name in "ab"]}))
    summary = run(tmp_path, ("photos.max_size=100", "photos.min_side=16"), intrinsics=str(file))
    photo_set = loaded(tmp_path)[1]
    assert [photo.camera for photo in photo_set.photos] == [0, 0, 1]
    assert photo_set.cameras[0].params == pytest.approx((125.0, 125.0, 49.5, 29.5))
    assert [camera.known for camera in photo_set.cameras] == [True, False]
    assert any("c.png" in text for text in summary.warnings)


def test_what_makes_it_run_again(tmp_path: Path) -> None:
    for index, name in enumerate("abc"):
        save(tmp_path / "photos" / f"{name}.png", index)
    file = tmp_path / "cameras.txt"
    file.write_text("1 PINHOLE 200 120 200 200 100 60\n")

    def skipped(**inputs: Any) -> bool:
        return run(tmp_path, **inputs).stages[0].skipped

    assert not skipped()
    assert skipped()
    assert not skipped(intrinsics=str(file))
    file.write_text("1 PINHOLE 200 120 210 210 100 60\n")
    assert not skipped(intrinsics=str(file))
    assert skipped(intrinsics=str(file))
    assert not skipped(intrinsics="200,200,100,60")
    assert not skipped(camera_sharing="per-photo")
    assert not skipped()
    (tmp_path / "photos" / "b.png").touch()
    assert skipped()
    save(tmp_path / "photos" / "b.png", 77)
    assert not skipped()
    (tmp_path / "photos" / "c.png").rename(tmp_path / "photos" / "d.png")
    assert not skipped()
    with pytest.raises(UsageError, match=r"--camera-sharing sometimes.*auto, single, per-photo"):
        skipped(camera_sharing="sometimes")


def test_workspace_inside_the_photo_folder(tmp_path: Path) -> None:
    for index, name in enumerate("ab"):
        save(tmp_path / "photos" / f"{name}.png", index)
    (tmp_path / "r.toml").write_text("")
    stage = PhotosStage()
    recipe = load_recipe(tmp_path / "r.toml", [stage])
    photos = str(tmp_path / "photos")
    options = RunOptions(inputs=RunInputs((photos,)), source=photos)
    for expected in (False, True):
        summary = run_stages([stage], recipe, tmp_path / "photos" / "out", options)
        assert (summary.stages[0].skipped, summary.counts("photos")["photos"]) == (expected, 2)


def test_photo_set_survives_json() -> None:
    text = json.dumps(
        {
            "photos": [
                {
                    "id": 0,
                    "name": "ü/a.jpg",
                    "sha256": "x",
                    "width": 3,
                    "height": 4,
                    "original_width": 6,
                    "original_height": 8,
                    "camera": 0,
                    "has_mask": True,
                    "latitude_longitude_altitude": [1.5, 2.5, -3.0],
                }
            ],
            "cameras": [
                {
                    "model": "PINHOLE",
                    "params": [1.1, 2.2, 3.3, 4.4],
                    "width": 3,
                    "height": 4,
                    "known": True,
                    "has_focal_prior": True,
                }
            ],
            "left_out": [{"name": "b", "reason": "c"}],
            "lens": "OPENCV",
        }
    )
    photo_set = photo_set_from_json(json.loads(text))
    assert photo_set.photos[0].latitude_longitude_altitude == (1.5, 2.5, -3.0)
    assert photo_set.cameras[0].K[0, 0] == 1.1
    assert json.loads(json.dumps(photo_set_to_json(photo_set))) == json.loads(text)


def test_what_lies_in_the_folder_besides_photos_is_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(3):
        save(tmp_path / "photos" / f"{index}.jpg", index)
    (tmp_path / "photos" / "notes.txt").write_text("hello")
    with caplog.at_level("INFO", logger="recon"):
        summary = run(tmp_path)
    assert summary.counts("photos")["files_passed_over"] == 1
    assert "passed over 1 file: notes.txt is no photo" in caplog.text


def test_masks_beside_photos_are_used_and_photos_without_are_named(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    keep = np.zeros((120, 200), np.uint8)
    keep[40:] = 255
    for index in range(4):
        save(photos / f"{index}.jpg", index)
    Image.fromarray(keep).save(photos / "0.jpg.png")
    Image.fromarray(keep).resize((400, 240)).save(photos / "1_mask.JPG")  # another size, the same shape
    Image.fromarray(keep[:100]).save(photos / "2_MASK.png")  # another shape
    summary = run(tmp_path)
    work, photo_set = loaded(tmp_path)
    assert [photo.name for photo in photo_set.photos] == ["0.jpg", "1.jpg", "3.jpg"]
    for index in (0, 1):
        np.testing.assert_array_equal(RunFolder(work.root).mask(photo_set.photos[index]), keep > 0)
    assert RunFolder(work.root).mask(photo_set.photos[2]) is None
    assert "the mask is 200x100 pixels, its photo is 200x120" in left_out(tmp_path)["2.jpg"]
    assert any("masks for 3 of 4 photos; these are used whole: 3.jpg" in text for text in summary.warnings)


def test_long_names_and_deep_folders_fit(tmp_path: Path) -> None:
    deep = "照片" * 20 + "/" + "文件夹" * 20
    names = [f"{deep}/{'あ' * 80}{index}.jpg" for index in range(3)]
    pixels = {
        name: save(tmp_path / "photos" / name.replace(".jpg", ".png"), i) for i, name in enumerate(names)
    }
    run(tmp_path)
    work, photo_set = loaded(tmp_path)
    assert len({RunFolder(work.root).photo_png(photo.name) for photo in photo_set.photos}) == 3
    for photo in photo_set.photos:
        np.testing.assert_array_equal(
            RunFolder(work.root).rgb(photo), pixels[photo.name.replace(".png", ".jpg")]
        )


def test_several_places_and_a_list_of_names(tmp_path: Path) -> None:
    for index in range(4):
        save(tmp_path / "photos" / f"{index}.png", index)
    save(tmp_path / "more" / "5.png", 5)
    (tmp_path / "list.txt").write_text("# chosen\nphotos/1.png\n\nphotos/3.png\n", encoding="utf-8")
    run(tmp_path, photos=(str(tmp_path / "list.txt"), str(tmp_path / "more")))
    assert [photo.name for photo in loaded(tmp_path)[1].photos] == [
        "more/5.png",
        "photos/1.png",
        "photos/3.png",
    ]
    run(tmp_path, photos=(str(tmp_path / "photos" / "[02].png"),))
    assert [photo.name for photo in loaded(tmp_path)[1].photos] == ["0.png", "2.png"]


def test_film_among_photos(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for index in range(2):
        save(photos / f"{index}.png", index)
    wide = np.asarray(Image.fromarray(save(photos / "1.png", 1)).resize((600, 128), Image.Resampling.BICUBIC))
    writer = cv2.VideoWriter(str(photos / "walk.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (160, 128))
    for offset in range(0, 400, 20):
        writer.write(np.ascontiguousarray(wide[:, offset : offset + 160, ::-1]))
    writer.release()
    (photos / "broken.mp4").write_bytes(b"no film")
    summary = run(tmp_path, ("photos.min_side=64",), frames=5)
    names = [photo.name for photo in loaded(tmp_path)[1].photos]
    assert len(names) == 7
    assert sum(name.startswith("walk.avi/frame_") for name in names) == 5
    assert "is no film that can be decoded" in left_out(tmp_path)["broken.mp4"]
    listing = json.loads((tmp_path / "out" / "frames" / "frames.json").read_text())
    assert [entry["photo"] for entry in listing] == names[2:]
    assert all(entry["seconds"] == pytest.approx(entry["frame"] / 10) for entry in listing)
    assert summary.counts("photos")["frames"] == 5


def test_a_film_of_which_the_rest_is_damaged_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    wide = np.asarray(
        Image.fromarray(save(tmp_path / "wide.png", 1)).resize((900, 128), Image.Resampling.BICUBIC)
    )
    film = tmp_path / "photos" / "walk.avi"
    film.parent.mkdir()
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (160, 128))
    for offset in range(0, 700, 20):
        writer.write(np.ascontiguousarray(wide[:, offset : offset + 160, ::-1]))
    writer.release()
    data = film.read_bytes()
    film.write_bytes(data[: len(data) // 2])
    summary = run(tmp_path, ("photos.min_side=64",), frames=4)
    assert len(loaded(tmp_path)[1].photos) == 4
    (told,) = [one for one in summary.warnings if "damaged" in one]
    assert "walk.avi: only 1" in told
    assert "of its 35 frames" in told
    with pytest.raises(ReconError, match=r"only one photo can be used, walk\.avi/frame_"):
        run(tmp_path, ("photos.min_side=64", "photos.max_size=100"), photos=(str(film),), frames=1)


def test_smaller_copies_and_folders_of_thumbnails_are_no_photos(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for index in range(3):
        pixels = Image.fromarray(save(photos / f"{index}.png", index, (400, 240)))
        for folder in ("@eaDir", "thumbnails", "web"):
            (photos / folder).mkdir(exist_ok=True)
            pixels.resize((200, 120), Image.Resampling.LANCZOS).save(
                photos / folder / f"{index}.jpg", quality=70
            )
    run(tmp_path)
    assert [photo.name for photo in loaded(tmp_path)[1].photos] == ["0.png", "1.png", "2.png"]
    assert left_out(tmp_path) == {f"web/{i}.jpg": f"is a smaller copy of {i}.png" for i in range(3)}


def test_a_full_panorama_is_left_out_with_the_way_out_and_a_wide_photo_is_not(tmp_path: Path) -> None:
    for index in range(2):
        save(tmp_path / "photos" / f"{index}.png", index, (240, 120))  # 2:1, but an ordinary picture
    longitude, latitude = np.meshgrid(
        (np.arange(400) + 0.5) / 400 * 2 * np.pi, (np.arange(200) + 0.5) / 200 * np.pi - np.pi / 2
    )
    x, y, z = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)
    sphere = 128 + 40 * np.sin(5 * x) + 40 * np.cos(4 * y + z) + 30 * np.sin(7 * z * x)
    Image.fromarray(np.repeat(sphere.astype(np.uint8)[..., None], 3, axis=2)).save(
        tmp_path / "photos" / "p.png"
    )
    run(tmp_path)
    assert [photo.name for photo in loaded(tmp_path)[1].photos] == ["0.png", "1.png"]
    assert "is a 360° panorama; 'recon panoramas' cuts such photos into views" in left_out(tmp_path)["p.png"]
