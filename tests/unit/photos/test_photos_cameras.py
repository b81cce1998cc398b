"""Which photos share a camera."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recon.core.cameras import Intrinsics
from recon.photos.cameras import CameraCandidate, assign_cameras
from recon.photos.exif import ExifFacts

PLAIN = ExifFacts()
CANON = ExifFacts(make="Canon", model="EOS", focal_mm=50.0, focal_35mm=80.0)


def photo(name: str, size: tuple[int, int] = (3000, 2000), exif: ExifFacts = PLAIN) -> CameraCandidate:
    return CameraCandidate(name, *size, size[0] // 2, size[1] // 2, exif)


def test_same_camera_lens_focal_and_size_share() -> None:
    photos = [
        photo("a.jpg", exif=CANON),
        photo("b/c.jpg", exif=CANON),
        photo("d.jpg", exif=replace(CANON, focal_mm=35.0, focal_35mm=56.0)),
        photo("e.jpg", exif=replace(CANON, lens="other")),
        photo("f.jpg", size=(2000, 3000), exif=replace(CANON, orientation=6)),
        photo("g.jpg", size=(2000, 3000), exif=replace(CANON, orientation=8)),
    ]
    assert assign_cameras(photos)[1] == (0, 0, 1, 2, 3, 4)


def test_without_exif_one_size_in_one_folder_shares() -> None:
    photos = [photo("a.jpg"), photo("b.jpg"), photo("x/c.jpg"), photo("d.jpg", (2000, 3000))]
    assert assign_cameras(photos)[1] == (0, 0, 1, 2)


def test_a_collection_of_many_sizes_shares_nothing() -> None:
    sizes = [(1024, 700), (1024, 700), (1000, 650), (800, 600), (1024, 683)]
    photos = [photo(f"{i}.jpg", size) for i, size in enumerate(sizes)]
    assert assign_cameras(photos)[1] == (0, 1, 2, 3, 4)
    # Three cameras with many photos each are no such collection.
    many = [photo(f"{i}.jpg", ((1024, 700), (1000, 650), (800, 600))[i % 3]) for i in range(9)]
    assert assign_cameras(many)[1] == (0, 1, 2, 0, 1, 2, 0, 1, 2)


def test_single_and_per_photo() -> None:
    photos = [photo("a.jpg", exif=CANON), photo("x/b.jpg"), photo("c.jpg", (2000, 3000))]
    assert assign_cameras(photos, "single")[1] == (0, 0, 1)
    assert assign_cameras(photos, "per-photo")[1] == (0, 1, 2)


def test_priors_at_working_size() -> None:
    cameras, _ = assign_cameras(
        [photo("a.jpg", exif=ExifFacts(make="x", focal_35mm=36.0)), photo("b.jpg", (2000, 3000))]
    )
    with_exif, without = cameras
    assert with_exif.params == pytest.approx((1500.0, 749.5, 499.5, 0.0))
    assert (with_exif.width, with_exif.height, with_exif.has_focal_prior, with_exif.known) == (
        1500,
        1000,
        True,
        False,
    )
    assert without.params[0] == pytest.approx(1.2 * 1500)
    assert not without.has_focal_prior


@pytest.mark.parametrize(
    ("model", "count"),
    [("SIMPLE_PINHOLE", 3), ("PINHOLE", 4), ("SIMPLE_RADIAL", 4), ("RADIAL", 5), ("OPENCV", 8), ("FULL_OPENCV", 12),
     ("auto", 4), ("OPENCV_FISHEYE", 4)],
)  # fmt: skip
def test_models_as_colmap_counts_their_parameters(model: str, count: int) -> None:
    camera = assign_cameras([photo("a.jpg")], model=model)[0][0]  # type: ignore[arg-type]
    assert len(camera.params) == count
    pycolmap = pytest.importorskip("pycolmap")
    theirs = pycolmap.Camera(
        model=camera.model, width=camera.width, height=camera.height, params=list(camera.params)
    )
    assert theirs.verify_params()
    assert camera.K[0, 0] == theirs.calibration_matrix()[0, 0]


def test_known_intrinsics_share_when_equal_and_come_at_working_size() -> None:
    known = Intrinsics(
        "PINHOLE", (3000.0, 3000.0, 1499.5, 999.5), 3000, 2000, known=True, has_focal_prior=True
    )
    other = replace(known, params=(2000.0, 2000.0, 1499.5, 999.5))
    photos = [photo("a.jpg"), photo("x/b.jpg", exif=CANON), photo("c.jpg"), photo("d.jpg")]
    cameras, camera_of = assign_cameras(photos, known={"a.jpg": known, "x/b.jpg": known, "c.jpg": other})
    assert camera_of == (0, 0, 1, 2)
    assert cameras[0].params == pytest.approx((1500.0, 1500.0, 749.5, 499.5))
    assert [camera.known for camera in cameras] == [True, True, False]


def test_digital_zoom_and_serial_number_are_cameras_of_their_own() -> None:
    plain = ExifFacts(make="M", model="C", focal_mm=4.0, focal_35mm=26.0)
    photos = [
        photo("0", exif=plain),
        photo("1", exif=replace(plain, digital_zoom=2.0)),
        photo("2", exif=plain),
        photo("3", exif=replace(plain, serial="17")),
    ]
    cameras, of = assign_cameras(photos)
    assert of == (0, 1, 0, 2)
    assert [camera.has_focal_prior for camera in cameras] == [True, False, True]
    assert cameras[1].params[0] == pytest.approx(2 * cameras[0].params[0])  # where the search starts


def test_a_focal_length_that_contradicts_itself_is_no_prior() -> None:
    # A sensor on which 50 mm is as 500 mm would be 4 mm wide: no camera with such a lens has one.
    contradictory = ExifFacts(make="M", model="C", focal_mm=50.0, focal_35mm=500.0)
    (camera,), _ = assign_cameras([photo("0", exif=contradictory)])
    assert not camera.has_focal_prior
    assert camera.params[0] == pytest.approx(1.2 * max(camera.width, camera.height))
    # A telephone, a bridge camera and a medium format camera are fine.
    for focal, equivalent in ((4.2, 30.0), (100.0, 560.0), (80.0, 63.0)):
        (camera,), _ = assign_cameras(
            [photo("0", exif=replace(contradictory, focal_mm=focal, focal_35mm=equivalent))]
        )
        assert camera.has_focal_prior
    # 3000x2000 pixels on 36x24 mm are 83.3 pixels a millimetre; a third of it contradicts the 35 mm equivalent.
    for per_mm, believed in ((83.3, True), (28.0, False)):
        full_frame = ExifFacts(make="M", model="C", focal_mm=35.0, focal_35mm=35.0, pixels_per_mm=per_mm)
        (camera,), _ = assign_cameras([photo("0", exif=full_frame)])
        assert camera.has_focal_prior is believed


def test_crops_are_cameras_of_their_own_and_resized_photos_are_not() -> None:
    whole = replace(PLAIN, make="A", model="B", focal_35mm=28.0, stored_longest=3000, stored_shortest=2000)
    photos = [
        photo("a.jpg", (3000, 2000), whole),
        photo("b.jpg", (3000, 2000), whole),
        photo("c.jpg", (2000, 2000), whole),
        photo("d.jpg", (2000, 2000), whole),
    ]
    cameras, index = assign_cameras(photos)
    assert index == (0, 0, 1, 2)
    assert [camera.has_focal_prior for camera in cameras] == [True, False, False]
    assert not whole.was_cropped(1500, 1000)  # half the size
    assert not whole.was_cropped(2000, 3000)  # turned upright
    assert not PLAIN.was_cropped(100, 900)  # nothing tells
