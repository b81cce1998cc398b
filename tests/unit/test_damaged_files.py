"""Damaged files of every kind: the error names the file, whatever the reader underneath raises."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.core.cameras import Intrinsics
from recon.core.colmap import read_reconstruction
from recon.errors import ReconError, UsageError, reading
from recon.exports.scene import SceneView, reconstruction_from_scene, scene_of_views
from recon.io.files import read_arrays
from recon.io.glb import GlbBuilder
from recon.io.surfaces import ply_elements, read_mesh, read_points_ply
from recon.photos.reading import PhotoError, decode_photo, read_mask
from recon.photos.scanning import find_masks, find_photos
from recon.render.scene_files import read_view_mesh
from recon.run.colmap_database import photo_sizes_from_database
from recon.run.folder import RunFolder
from tests.support.evaluation_run import make_run, make_scene


@pytest.mark.parametrize(
    "error", [KeyError("xy"), ValueError("bad"), IndexError(), RecursionError("deep"), MemoryError()]
)
def test_an_error_of_a_reader_names_the_file_and_the_way_out(error: Exception) -> None:
    with pytest.raises(ReconError, match=r"^a\.npz: .*; make it anew$"), reading("a.npz", "make it anew"):
        raise error


def test_an_error_that_is_said_already_stays() -> None:
    with pytest.raises(UsageError, match=r"^as it was$"), reading("a.npz"):
        raise UsageError("as it was")


# Arrays


def test_an_archive_that_unpacks_to_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(3))
    assert read_arrays(path)["x"].tolist() == [0, 1, 2]
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000,), }".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as stream:
        stream.write(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode())
        stream.write(bytes(1 << 20))
    data = path.read_bytes()
    size = struct.pack("<I", (1 << 20) + 128)
    assert data.count(size) >= 1
    path.write_bytes(data.replace(size, struct.pack("<I", 4_000_000_000)))
    with pytest.raises(ReconError, match=r"a\.npz: unpacks to 3814 MB"):
        read_arrays(path)


@pytest.mark.parametrize("keep", [0, 4, 100])
def test_an_archive_that_is_cut_short(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(300))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ReconError, match=r"a\.npz: cannot be read .*; again"):
        read_arrays(path, "again")


# COLMAP models


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two photos that see three points."""
    camera = Intrinsics("PINHOLE", (100.0, 100.0, 50.0, 40.0), 100, 80)
    poses = [np.column_stack([np.eye(3), [x, 0.0, 5.0]]) for x in (0.0, 1.0)]
    points = np.array([[0.0, 0, 0], [0.5, 0.2, 0], [0.2, 0.5, 1]])
    keypoints = [
        (points + pose[:, 3])[:, :2] / (points + pose[:, 3])[:, 2:] * 100 + [50, 40] for pose in poses
    ]
    views = [SceneView(f"{i}.png", 0, poses[i], keypoints[i]) for i in range(2)]
    seen = [(point, view, point) for point in range(3) for view in range(2)]
    folder = tmp_path / "model"
    folder.mkdir()
    made = reconstruction_from_scene(
        scene_of_views([camera], views, points, np.zeros((3, 3), np.uint8), seen)
    )
    made.write_binary(folder)
    return folder


def test_a_whole_model_is_read(model: Path) -> None:
    found = read_reconstruction(model)
    assert (len(found.images), len(found.points3D)) == (2, 3)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin", "frames.bin", "rigs.bin"])
def test_a_count_that_the_file_cannot_hold_is_refused_before_room_is_made_for_it(
    model: Path, name: str
) -> None:
    data = bytearray((model / name).read_bytes())
    struct.pack_into("<Q", data, 0, 2**40)
    (model / name).write_bytes(data)
    with pytest.raises(ReconError, match=name.replace(".", r"\.")):
        read_reconstruction(model)


@pytest.mark.parametrize(
    ("name", "at", "kind", "value"),
    [
        ("points3D.bin", 8 + 43, "<Q", 2**34),  # the length of a track
        ("points3D.bin", 8 + 51, "<I", 77),  # a photo that is not there
        ("points3D.bin", 8 + 55, "<I", 9999),  # a keypoint that is not there
        ("images.bin", 8 + 64 + 6, "<Q", 2**34),  # the number of keypoints, behind "0.png"
        ("frames.bin", 8 + 64, "<I", 2**31),
        ("frames.bin", 8 + 8, "<d", float("nan")),
        ("cameras.bin", 8 + 8, "<Q", 2**40),  # the width
        ("cameras.bin", 8 + 24, "<d", float("inf")),
    ],
)
def test_a_model_that_contradicts_itself(model: Path, name: str, at: int, kind: str, value: float) -> None:
    data = bytearray((model / name).read_bytes())
    struct.pack_into(kind, data, at, value)
    (model / name).write_bytes(data)
    with pytest.raises(ReconError, match="model"):
        read_reconstruction(model)


def test_a_model_that_lacks_a_file(model: Path) -> None:
    (model / "frames.bin").unlink()
    with pytest.raises(ReconError, match="no whole COLMAP model"):
        read_reconstruction(model)


def test_reading_a_database_leaves_nothing_beside_it(tmp_path: Path) -> None:
    import pycolmap

    path = tmp_path / "database.db"
    with pycolmap.Database.open(path) as database:
        camera = pycolmap.Camera(camera_id=1, model="PINHOLE", width=100, height=80, params=[90, 90, 50, 40])
        database.write_image(pycolmap.Image(name="a.png", camera_id=database.write_camera(camera)))
    names = {one.name for one in tmp_path.iterdir()}
    assert photo_sizes_from_database(path) == {"a.png": (100, 80)}
    assert {one.name for one in tmp_path.iterdir()} == names


# Clouds and meshes


def _ply(vertices: int, faces: int, body: bytes) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {vertices}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"element face {faces}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(lines).encode() + body


@pytest.mark.parametrize(
    ("vertices", "faces", "corner"),
    [(3, 1, 7), (3, 1, -1), (99_999_999_999, 1, 2), (3, 2**32, 2), (-1, 1, 2)],
)
def test_a_ply_whose_header_or_faces_lie(tmp_path: Path, vertices: int, faces: int, corner: int) -> None:
    path = tmp_path / "a.ply"
    body = np.eye(3, dtype="<f4").tobytes() + struct.pack("<Biii", 3, 0, 1, corner)
    path.write_bytes(_ply(3, 1, body))
    if corner == 2:
        assert len(read_mesh(path).triangles) == 1
    path.write_bytes(_ply(vertices, faces, body))
    with pytest.raises(ReconError, match=r"a\.ply"):
        read_mesh(path)


@pytest.mark.parametrize("corners", [(0, 1, 2, 3), (0, 1, 2, 9), (0, 1, 2, -1), (0, 1), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("kind", ["binary_little_endian", "binary_big_endian", "ascii"])
def test_polygons_of_a_ply_are_looked_at_before_open3d_does(
    tmp_path: Path, corners: tuple[int, ...], kind: str
) -> None:
    order = ">" if kind == "binary_big_endian" else "<"
    places = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], order + "f4")
    body = places.tobytes()
    for face in ((0, 1, 2), corners):
        body += struct.pack(f"{order}B{len(face)}i", len(face), *face)
    if kind == "ascii":
        rows = [*map(tuple, places), (3, 0, 1, 2), (len(corners), *corners)]
        body = "\n".join(
            " ".join(str(float(v) if len(row) == 3 else v) for v in row) for row in rows
        ).encode()
        body = body.replace(b"2.0 0.0 1.0", b"2 0 1")  # a face of two vertices is a row of three as well
    path = tmp_path / "a.ply"
    path.write_bytes(_ply(4, 2, body).replace(b"binary_little_endian", kind.encode()))
    if corners == (0, 1, 2, 3):
        assert len(read_mesh(path).triangles) == 3
    else:
        with pytest.raises(ReconError, match=r"a\.ply"):
            read_mesh(path)


def test_a_ply_whose_faces_end_early(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    quad = struct.pack("<B4i", 4, 0, 1, 2, 0)
    path.write_bytes(_ply(3, 2, np.eye(3, dtype="<f4").tobytes() + quad + quad[:9]))
    with pytest.raises(ReconError, match=r"a\.ply"):
        read_mesh(path)


def test_a_glb_whose_faces_lie(tmp_path: Path) -> None:
    path = tmp_path / "a.glb"
    glb = GlbBuilder()
    attributes = {"POSITION": glb.accessor(np.eye(3, dtype=np.float32), bounds=True)}
    indices = glb.accessor(np.array([0, 1, 44_090], np.uint32))
    path.write_bytes(glb.mesh([{"attributes": attributes, "indices": indices, "material": 0}], [{}]))
    with pytest.raises(ReconError, match=r"a\.glb"):
        read_view_mesh(path)


def test_a_ply_without_numbers_in_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(b"ply\nformat ascii 1.0\nelement vertex many\nend_header\n")
    for read in (ply_elements, read_points_ply):
        with pytest.raises(ReconError, match=r"a\.ply: cannot be read"):
            read(path)


# Photos and masks


def _bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def test_pictures_that_claim_to_be_huge(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    path.write_bytes(_bmp(2**31 - 1, 100_000))
    with pytest.raises(PhotoError, match="pixels, more than"):
        decode_photo(path)
    with pytest.raises(ReconError, match=r"a\.bmp: .*pixels, more than"):
        read_mask(path, 100, 80)


def test_a_picture_that_claims_to_be_huge_is_not_unpacked_to_see_whether_it_is_a_mask(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    header = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 300_000, 300_000, 8, 3)
    (tmp_path / "a_mask.jpg").write_bytes(header + bytes(100))
    assert not find_photos([tmp_path]).masks


def test_what_is_no_file_is_passed_over_by_name(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("nowhere.png")
    (tmp_path / "c.png").symlink_to("c.png")
    found = find_photos([tmp_path])
    assert [one.name for one in found.photos] == ["a.png"]
    assert {one.name for one in found.passed_over} == {"b.png", "c.png"}
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.jpg").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="holds no mask"):
        find_masks(tmp_path / "masks", found.photos)


# Workspaces


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    make_run(make_scene(root / "scene"), root)
    np.savez(root / "sparse_matches.npz", **{"0_1": np.zeros((3, 2), np.int64)})
    np.savez(root / "tracks.npz", track_id=np.array([0, 0]), photo_id=np.array([0, 1]), xy=np.ones((2, 2)))
    return root


READERS: dict[str, Callable[[RunFolder], object]] = {
    "photos.json": lambda run: run.photo_set,
    "pairs.json": lambda run: run.pairs,
    "sparse_matches.npz": lambda run: run.sparse_matches(),
    "tracks.npz": lambda run: run.tracks(),
    "two_view.npz": lambda run: run.named_two_view_poses(),
    "dense/depth/0.npz": lambda run: run.depth_map(0),
    "flows.zarr/0_1/flow_a": lambda run: run.dense_match((0, 1)),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", [b"", b"{", b"PK\3\4", b"[1, 2", b'{"photos": 3}'])
def test_a_damaged_file_of_a_workspace_names_itself_and_the_stage(
    whole: Path, tmp_path: Path, name: str, damage: bytes
) -> None:
    root = tmp_path / "run"
    shutil.copytree(whole, root)
    READERS[name](RunFolder(root))
    path = root / name
    for file in [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]:
        file.write_bytes(damage)
    with pytest.raises(ReconError, match=rf"{path.name}.*(--restart-from|same command)"):
        READERS[name](RunFolder(root))


def test_pairs_of_another_run_are_refused(whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(whole, root)
    entries = json.loads((root / "pairs.json").read_text())
    entries[0]["a"] = "other.png"
    (root / "pairs.json").write_text(json.dumps(entries))
    with pytest.raises(ReconError, match=r"pairs\.json: has the pair other\.png.*restart-from pairs"):
        _ = RunFolder(root).pairs


@pytest.mark.parametrize("folder", [False, True])
def test_pairs_of_photos_that_are_gone_are_refused(whole: Path, tmp_path: Path, folder: bool) -> None:
    root = tmp_path / "run"
    shutil.copytree(whole, root)
    (root / "photos.json").unlink()
    if folder:
        (root / "photos.json").mkdir()
    for read in (
        lambda: list(RunFolder(root).matches()),
        lambda: RunFolder(root).flow_shape(RunFolder(root).named_pairs[0][0]),
    ):
        with pytest.raises(ReconError, match=r"photos\.json: does not have the photos .*restart-from photos"):
            read()


def test_tracks_of_another_run_are_refused(whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(whole, root)
    np.savez(root / "tracks.npz", track_id=np.array([0, 0]), photo_id=np.array([0, 99]), xy=np.ones((2, 2)))
    with pytest.raises(ReconError, match=r"tracks\.npz: .*photos.*restart-from tracks"):
        RunFolder(root).tracks()
