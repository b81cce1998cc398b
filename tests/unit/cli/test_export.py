"""recon export, import and georeference on a small finished run, read back by other libraries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.cli import main
from recon.exports import bundler, nerfstudio, openmvg
from recon.exports.georeference import Georeference
from recon.exports.scene import Scene, reconstruction_from_scene, scene_from_reconstruction
from recon.io.glb import read_glb
from recon.io.manifest import StageRecord, read_manifest
from tests.support.exports_scene import (
    NAMES,
    SPOTS,
    assert_same_cameras,
    assert_same_points,
    camera_of,
    model_of,
    pixels,
    read_rgb,
    spot_offset,
    write_workspace,
)

trimesh = pytest.importorskip("trimesh")
laspy = pytest.importorskip("laspy")


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Scene]:
    """A workspace whose name has a space and an umlaut, with distorted cameras."""
    root = tmp_path / "mein lauf ü"
    return root, write_workspace(root, [camera_of("OPENCV")], mask_of=1)


def export(root: Path, kind: str, *more: str) -> Path:
    assert main(["export", str(root), "--to", kind, *more]) == 0
    return root / "exports" / kind


def assert_spots(folder: Path, scene: Scene, tolerance: float = 0.06) -> None:
    """Every photo of the export shows the spots where the exported cameras see them.

    Half a pixel of difference between the conventions of photos and cameras would fail here.
    """
    for view in scene.views:
        rgb = read_rgb(folder / view.name)
        camera = scene.intrinsics(view)
        assert rgb.shape[:2] == (camera.height, camera.width)
        for at in pixels(camera, view.cam_from_world, SPOTS):
            radius = round(0.045 * camera.width)
            assert np.abs(spot_offset(rgb, at, radius)).max() < tolerance * camera.width / 320


# Cameras and photos


@pytest.mark.parametrize("kind", ["colmap", "colmap-text"])
def test_colmap(run: tuple[Path, Scene], kind: str) -> None:
    root, scene = run
    out = export(root, kind)
    back = scene_from_reconstruction(model_of(out / "sparse" / "0"))
    assert_spots(out / "images", back)
    # White space would end a name in COLMAP's text files.
    assert all(" " not in view.name for view in back.views) == (kind == "colmap-text")
    assert back.views[3].name == "塔.png"
    mark = json.loads((out / "export.json").read_text(encoding="utf-8"))
    assert mark["renamed_photos"][NAMES[0]] == back.views[0].name
    renamed = scene.renamed(mark["renamed_photos"])
    assert_same_cameras(renamed, back, 1e-9)
    assert_same_points(renamed, back, 1e-9)
    mask = read_rgb(out / "masks" / f"{back.views[1].name}.png")
    assert not mask[:20].any()
    assert mask[20:].all()


def test_original_size(run: tuple[Path, Scene]) -> None:
    root, scene = run
    out = export(root, "colmap", "--size", "original")
    back = scene_from_reconstruction(model_of(out / "sparse" / "0"))
    assert back.cameras[0].width == 640
    assert [view.name for view in back.views] == list(NAMES)  # the files themselves, byte for byte
    original = root.parent / "die fotos" / NAMES[0]
    assert (out / "images" / NAMES[0]).read_bytes() == original.read_bytes()
    assert_spots(out / "images", back)
    assert (
        model_of(out / "sparse" / "0").compute_mean_reprojection_error() < 0.5
    )  # random features, all explained
    np.testing.assert_allclose(back.views[2].cam_from_world, scene.views[2].cam_from_world, atol=1e-12)


def test_original_photos_that_lie_on_their_side(run: tuple[Path, Scene]) -> None:
    """Other programs do not look at EXIF's orientation: such photos are written upright."""
    root, _ = run
    path = root.parent / "die fotos" / NAMES[2]
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # stored turned to the left; to be turned to the right
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=98)
    out = export(root, "colmap", "--size", "original")
    back = scene_from_reconstruction(model_of(out / "sparse" / "0"))
    assert back.views[2].name == NAMES[2].replace(".jpg", ".png")
    assert_spots(out / "images", back)


def test_photos_that_moved(
    run: tuple[Path, Scene], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = run
    (root.parent / "die fotos").rename(tmp_path / "archiv")
    assert main(["export", str(root), "--to", "colmap", "--size", "original"]) == 1
    message = capsys.readouterr().err
    assert "die fotos" in message
    assert "--photos" in message
    out = export(root, "colmap", "--size", "original", "--photos", str(tmp_path / "archiv"))
    assert (out / "images" / NAMES[3]).is_file()


def test_nerfstudio(run: tuple[Path, Scene]) -> None:
    root, scene = run
    out = export(root, "nerfstudio")
    data = json.loads((out / "transforms.json").read_text(encoding="utf-8"))
    assert all((out / frame["file_path"]).is_file() for frame in data["frames"])
    # Its data parser takes a mask for every frame or for none.
    assert all((out / frame["mask_path"]).is_file() for frame in data["frames"])
    assert read_rgb(out / data["frames"][0]["mask_path"]).all()
    assert not read_rgb(out / data["frames"][1]["mask_path"])[:20].any()
    back = nerfstudio.from_transforms(data)
    assert_spots(out, back)
    for view, truth in zip(back.views, scene.views, strict=True):
        np.testing.assert_allclose(view.cam_from_world, truth.cam_from_world, atol=1e-9)
    points = trimesh.load(out / data["ply_file_path"], process=False)
    np.testing.assert_allclose(points.vertices, scene.xyz, atol=1e-6)


def test_undistorted(run: tuple[Path, Scene]) -> None:
    root, _ = run
    out = export(root, "nerfstudio", "--undistort")
    data = json.loads((out / "transforms.json").read_text(encoding="utf-8"))
    back = nerfstudio.from_transforms(data)
    assert back.cameras[0].model == "PINHOLE"
    assert_spots(out, back)


def test_openmvs_takes_the_undistorted_model(run: tuple[Path, Scene]) -> None:
    root, scene = run
    out = export(root, "openmvs")
    model = model_of(out / "sparse")
    back = scene_from_reconstruction(model)
    assert {camera.model for camera in back.cameras} == {"PINHOLE"}
    assert len(back.xyz) == len(scene.xyz)
    assert_spots(out / "images", back, 0.12)  # COLMAP samples bilinearly
    assert all(" " not in view.name for view in back.views)


def test_openmvs_text_follows_the_rules_of_interfacecolmap(run: tuple[Path, Scene]) -> None:
    """What its reader of text asks for: PINHOLE, a name without spaces, a line of points after each image, tracks."""
    out = export(run[0], "openmvs")
    rows = {
        name: [
            line.strip()
            for line in (out / "sparse" / name).read_text(encoding="utf-8").split("\n")
            if not line.startswith("#")
        ]
        for name in ("cameras.txt", "images.txt", "points3D.txt")
    }
    cameras = {}
    for line in filter(None, rows["cameras.txt"]):
        number, model, width, height, *params = line.split()
        assert (model, len(params)) == ("PINHOLE", 4)
        cameras[int(number)] = (int(width), int(height), [float(value) for value in params])
    binary = model_of(out / "sparse")
    heads, points = rows["images.txt"][0::2], rows["images.txt"][1::2]
    seen = {}
    for head, line in zip(filter(None, heads), points, strict=False):
        number, *pose, camera, name = head.split()
        width, height, params = cameras[int(camera)]
        assert read_rgb(out / "images" / name).shape[:2] == (height, width)
        image = binary.images[int(number)]
        quaternion = image.cam_from_world().rotation.quat
        np.testing.assert_allclose(
            [float(value) for value in pose],
            [quaternion[3], *quaternion[:3], *image.cam_from_world().translation],
        )
        np.testing.assert_allclose(params, binary.cameras[int(camera)].params)
        seen[int(number)] = len(line.split()) // 3
    assert len(seen) == len(binary.images)
    for line in filter(None, rows["points3D.txt"]):
        track = [int(value) for value in line.split()[8:]]
        assert len(track) >= 4
        assert all(keypoint < seen[image] for image, keypoint in zip(track[0::2], track[1::2], strict=True))


def test_bundler_centres_the_photos(run: tuple[Path, Scene], capsys: pytest.CaptureFixture[str]) -> None:
    root, _ = run
    out = export(root, "bundler")
    assert "resampled" in capsys.readouterr().out
    names = [line.split()[0] for line in (out / "list.txt").read_text(encoding="utf-8").splitlines()]
    back = bundler.from_bundle((out / "bundle.out").read_text(), names, [(320, 240)] * 4)
    assert_spots(out, back)
    assert main(["export", str(root), "--to", "bundler", "--no-images"]) == 2
    assert "camera model OPENCV" in capsys.readouterr().err


def test_pmvs_by_number_and_the_old_lists(
    run: tuple[Path, Scene], capsys: pytest.CaptureFixture[str]
) -> None:
    root, scene = run
    out = export(root, "pmvs")
    assert "resampled" in capsys.readouterr().out
    assert not (out / "images").exists()
    names = [f"visualize/{k:08d}.jpg" for k in range(4)]
    assert sorted(path.name for path in (out / "visualize").iterdir()) == [Path(name).name for name in names]
    # The bundle file beside it has the same cameras; the photos show the spots where these see them.
    back = bundler.from_bundle((out / "bundle.rd.out").read_text(), names, [(320, 240)] * 4)
    assert_spots(out, back)
    for k, view in enumerate(back.views):
        head, *rows = (out / "txt" / f"{k:08d}.txt").read_text().splitlines()
        matrix = np.array([[float(one) for one in row.split()] for row in rows])
        expected = back.intrinsics(view).K @ view.cam_from_world
        assert head == "CONTOUR"
        np.testing.assert_allclose(matrix, expected, atol=1e-8)
    options = dict(line.split(maxsplit=1) for line in (out / "pmvs_options.txt").read_text().splitlines())
    assert options["timages"] == "-1 0 4"
    assert (out / "vis.dat").read_text().startswith("VISDATA\n4\n0 ")
    renamed = json.loads((out / "export.json").read_text(encoding="utf-8"))["renamed_photos"]
    assert renamed == {view.name: name for view, name in zip(scene.views, names, strict=True)}
    assert main(["export", str(root), "--to", "pmvs", "--no-images"]) == 2
    lists = (export(root, "openmvg-lists") / "lists.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(";")[0] for line in lists] == [
        f"images/{Path(v.name).with_suffix('.png')}" for v in scene.views
    ]


def test_openmvg_there_and_back(run: tuple[Path, Scene], tmp_path: Path) -> None:
    root, _ = run
    out = export(root, "openmvg")
    data = json.loads((out / "sfm_data.json").read_text(encoding="utf-8"))
    scene, _ = openmvg.from_sfm_data(data)
    assert_spots(out / "images", scene)
    target = tmp_path / "herüber"
    assert main(["import", "openmvg", str(out), "--out", str(target)]) == 0
    back = scene_from_reconstruction(model_of(target / "sparse" / "0"))
    assert_same_cameras(scene, back)
    assert_same_points(scene, back)
    import pycolmap

    with pycolmap.Database.open(target / "database.db") as database:
        geometry = database.read_two_view_geometry(1, 3)
        keypoints = database.read_keypoints(1)[:, :2]
    common = {p for p, v, _ in scene.observations if v == 0} & {p for p, v, _ in scene.observations if v == 2}
    assert len(geometry.inlier_matches) == len(common)
    np.testing.assert_allclose(keypoints - 0.5, back.views[0].keypoints, atol=1e-4)
    # It knows where the photos are: what came over can be taken elsewhere at once.
    assert main(["export", str(target), "--to", "nerfstudio", "--out", str(tmp_path / "weiter")]) == 0
    data = json.loads((tmp_path / "weiter" / "transforms.json").read_text(encoding="utf-8"))
    assert_spots(tmp_path / "weiter", nerfstudio.from_transforms(data))
    # What the importer writes, --intrinsics and evaluate take.
    cameras = json.loads((target / "cameras.json").read_text(encoding="utf-8"))
    assert [image["name"] for image in cameras["images"]] == [view.name for view in scene.views]


@pytest.mark.parametrize("kind", ["nerfstudio", "meshroom", "bundler", "openmvg", "colmap"])
def test_every_import_gives_the_cameras_back(run: tuple[Path, Scene], tmp_path: Path, kind: str) -> None:
    root, _ = run
    out = export(root, kind)
    photos = ["--photos", str(out)] if kind == "bundler" else []
    assert main(["import", kind, str(out), "--out", str(tmp_path / "back"), *photos]) == 0
    back = scene_from_reconstruction(model_of(tmp_path / "back" / "sparse" / "0"))
    place = out if kind in ("nerfstudio", "bundler") else out / "images"
    assert_spots(place, back)


def test_meshroom_without_images_points_to_the_photos(run: tuple[Path, Scene]) -> None:
    root, _ = run
    out = export(root, "meshroom", "--no-images", "--size", "original")
    data = json.loads((out / "cameras.sfm").read_text(encoding="utf-8"))
    assert all(Path(view["path"]).is_file() for view in data["views"])
    assert data["views"][0]["width"] == "640"
    assert not (out / "images").exists()
    within = json.loads((export(root, "meshroom") / "cameras.sfm").read_text(encoding="utf-8"))
    assert all(Path(view["path"]).is_file() for view in within["views"])  # wherever Meshroom is started


# Points and meshes


def test_points_and_meshes(run: tuple[Path, Scene], tmp_path: Path) -> None:
    root, _ = run
    points = trimesh.load(export(root, "ply") / "points.ply", process=False)
    assert len(points.vertices) == 500
    las = laspy.read(export(root, "las") / "points.las")
    np.testing.assert_allclose(las.xyz, points.vertices, atol=1e-6)
    obj = trimesh.load(export(root, "obj") / "mesh.obj", process=False)
    assert obj.volume == pytest.approx(0.125, rel=1e-5)
    glb = trimesh.load(export(root, "glb") / "mesh.glb").to_mesh()
    assert glb.volume == pytest.approx(0.125, rel=1e-5)
    # The run's z is up (the photos say so), glTF's y is.
    np.testing.assert_allclose(np.ptp(glb.vertices, axis=0)[1], 0.25, atol=1e-2)
    single = tmp_path / "nur dies.las"
    assert main(["export", str(root), "--to", "las", "--out", str(single)]) == 0
    assert laspy.read(single).header.point_count == 500


def test_textured_meshes_bring_their_pictures(run: tuple[Path, Scene]) -> None:
    root, _ = run
    (root / "mesh" / "textured.mtl").write_text("newmtl a\nmap_Kd textur 1.png\n")
    (root / "mesh" / "textur 1.png").write_bytes(b"picture")
    (root / "mesh" / "textured.obj").write_text(
        "mtllib textured.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\n"
    )
    out = export(root, "obj")
    assert (out / "textur 1.png").read_bytes() == b"picture"
    text = (out / "mesh.obj").read_text()
    assert "mtllib textured.mtl" in text
    assert "f 1/1 2/2 3/3" in text


def test_textured_meshes_of_the_run_move_with_their_texture(run: tuple[Path, Scene]) -> None:
    """What stage texture leaves: the picture and the texture coordinates stay, the corners move."""
    from recon.io.pictures import encode_picture
    from recon.surface.texture.files import textured_glb, write_textured_obj
    from recon.surface.texture.types import TexturedMesh

    root, _ = run
    vertices = np.array([[0.0, 0, 0], [2, 0, 0], [2, 0, 1], [0, 0, 1]])  # upright in the run, z is up
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    uv = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    picture = np.random.default_rng(0).integers(0, 256, (16, 32, 3)).astype(np.uint8)
    none = np.zeros(2, np.int32)
    mesh = TexturedMesh(vertices, faces, uv[faces], picture, none, none)
    png = encode_picture(picture, "png")
    folder = root / "mesh"
    (folder / "texture.png").write_bytes(png)
    write_textured_obj(folder / "textured.obj", mesh, ["texture.png"], material_path=folder / "textured.mtl")
    (folder / "textured.glb").write_bytes(textured_glb(mesh, [png], "png"))
    assert main(["georeference", str(root), "--length", f"{NAMES[0]},{NAMES[3]}=7.5"]) == 0
    found = Georeference.from_json(json.loads((root / "georeference.json").read_text(encoding="utf-8")))
    expected = found.similarity(vertices)
    obj = trimesh.load(export(root, "obj", "--georeferenced") / "mesh.obj", process=False)
    glb = trimesh.load(export(root, "glb", "--georeferenced") / "mesh.glb", process=False)
    name = glb.graph.nodes_geometry[0]
    transform, geometry = glb.graph[name]
    in_glb = trimesh.transform_points(glb.geometry[geometry].vertices, transform)
    y_up = expected[:, [0, 2, 1]] * [1, 1, -1]
    for got, corners, visual in (
        (obj.vertices, expected, obj.visual),
        (in_glb, y_up, glb.geometry[geometry].visual),
    ):
        for corner, at in zip(corners, uv, strict=True):
            nearest = int(np.argmin(np.linalg.norm(got - corner, axis=1)))
            np.testing.assert_allclose(got[nearest], corner, atol=1e-5)
            np.testing.assert_allclose(visual.uv[nearest], at, atol=1e-6)
    for visual in (obj.visual, glb.geometry[geometry].visual):
        image = getattr(visual.material, "image", None) or visual.material.baseColorTexture
        assert np.array_equal(np.asarray(image.convert("RGB")), picture)


# What is missing is said


def test_missing_parts_are_named(run: tuple[Path, Scene], capsys: pytest.CaptureFixture[str]) -> None:
    root, scene = run
    shutil.rmtree(root / "mesh")
    shutil.rmtree(root / "dense")
    assert main(["export", str(root), "--to", "glb"]) == 1
    assert "no mesh" in capsys.readouterr().err
    out = export(root, "ply")
    assert "sparse points" in capsys.readouterr().out
    assert len(trimesh.load(out / "points.ply", process=False).vertices) == len(scene.xyz)
    assert main(["export", str(root), "--to", "las", "--georeferenced"]) == 1
    assert "recon georeference" in capsys.readouterr().err
    shutil.rmtree(root / "sparse")
    assert main(["export", str(root), "--to", "colmap"]) == 1
    assert "no cameras" in capsys.readouterr().err
    assert main(["export", str(root), "--to", "maya"]) == 2
    assert main(["export", str(root / "nowhere"), "--to", "ply"]) == 2


def test_only_exports_are_replaced(run: tuple[Path, Scene], tmp_path: Path) -> None:
    root, _ = run
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    assert main(["export", str(root), "--to", "ply", "--out", str(precious)]) == 2
    assert (precious / "thesis.txt").is_file()
    out = export(root, "ply")
    (out / "stale").touch()
    assert not (export(root, "ply") / "stale").exists()
    assert not [path for path in (root / "exports").iterdir() if path.name.startswith(".")]


def test_bare_colmap_model(run: tuple[Path, Scene], tmp_path: Path) -> None:
    root, scene = run
    bare = tmp_path / "bare"
    shutil.copytree(root / "sparse" / "0", bare / "sparse" / "0")
    out = tmp_path / "out"
    photos = str(root.parent / "die fotos")
    assert main(["export", str(bare), "--to", "nerfstudio", "--photos", photos, "--out", str(out)]) == 0
    back = nerfstudio.from_transforms(json.loads((out / "transforms.json").read_text(encoding="utf-8")))
    assert back.cameras[0].width == 640  # the photos that are there count
    assert_spots(out, back)
    assert len(back.views) == len(scene.views)


def test_broken_imports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "sfm_data.json"
    for text in ("{", "{}", '{"views": [], "intrinsics": [], "extrinsics": []}'):
        source.write_text(text)
        assert main(["import", "openmvg", str(source), "--out", str(tmp_path / "o")]) == 1
        assert "sfm_data.json" in capsys.readouterr().err
    assert main(["import", "openmvg", str(tmp_path / "nothing"), "--out", str(tmp_path / "o")]) == 2
    assert main(["import", "word", str(source), "--out", str(tmp_path / "o")]) == 2
    assert not (tmp_path / "o").exists()


# Georeference


def gps_of(scene: Scene) -> tuple[list[tuple[float, float, float]], np.ndarray]:
    """GPS positions of the photos, if one unit is 50 m and the model stands level in Munich; and UTM of them."""
    pyproj = pytest.importorskip("pyproj")
    utm = 50.0 * np.array([view.center for view in scene.views]) + np.array([691_500.0, 5_334_700.0, 519.0])
    lon, lat = pyproj.Transformer.from_crs(32632, 4326, always_xy=True).transform(utm[:, 0], utm[:, 1])
    return [tuple(map(float, row)) for row in np.column_stack([lat, lon, utm[:, 2]])], utm


def test_gps_to_las(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_workspace(tmp_path / "first", [camera_of("OPENCV")])
    gps, utm = gps_of(scene)
    root = tmp_path / "run"
    write_workspace(root, [camera_of("OPENCV")], gps=gps)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert main(["georeference", str(root), "--gps-error", "0.5"]) == 0
    assert "UTM zone 32N" in capsys.readouterr().out
    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert {path.name for path in set(after) - set(before)} == {"georeference.json", "precision.npz"}
    assert all(after[path] == content for path, content in before.items())  # results stay in their frame
    found = Georeference.from_json(json.loads((root / "georeference.json").read_text(encoding="utf-8")))
    np.testing.assert_allclose(found.to_crs(np.array([v.center for v in scene.views])), utm, atol=0.01)
    las = laspy.read(export(root, "las", "--georeferenced") / "points.las")
    plain = trimesh.load(export(root, "ply") / "points.ply", process=False).vertices
    expected = 50.0 * np.asarray(plain) + np.array([691_500.0, 5_334_700.0, 519.0])
    np.testing.assert_allclose(las.xyz, expected, atol=0.01)
    assert las.header.parse_crs().to_epsg() == 32632
    model = export(root, "colmap", "--georeferenced")
    back = scene_from_reconstruction(model_of(model / "sparse" / "0"))
    centers = np.array([view.center for view in back.views]) + found.offset
    np.testing.assert_allclose(centers, utm, atol=0.01)
    assert np.abs([view.center for view in back.views]).max() < 1000  # no large numbers for single precision
    glb = trimesh.load(export(root, "glb", "--georeferenced") / "mesh.glb")
    assert glb.to_mesh().volume == pytest.approx(0.125 * 50**3, rel=1e-4)
    assert read_glb((root / "exports/glb/mesh.glb").read_bytes())[0]["asset"]["extras"]["crs"] == "EPSG:32632"
    ply = (export(root, "ply", "--georeferenced") / "points.ply").read_bytes()
    assert b"comment offset " in ply[:400]
    assert b"comment crs EPSG:32632" in ply[:400]


def test_models_in_utm_do_not_jitter(run: tuple[Path, Scene], tmp_path: Path) -> None:
    """Another program's model may have large coordinates: single precision would cut them to half metres."""
    root, scene = run
    bare = tmp_path / "utm"
    (bare / "sparse" / "0").mkdir(parents=True)
    place = np.array([691_500.25, 5_334_700.5, 519.0])
    reconstruction_from_scene(scene.moved(1.0, np.eye(3), place)).write_binary(bare / "sparse" / "0")
    shutil.copytree(root.parent / "die fotos", bare / "images")
    export(bare, "nerfstudio")
    out = bare / "exports" / "nerfstudio"
    offset = np.array(json.loads((out / "export.json").read_text(encoding="utf-8"))["offset"])
    back = nerfstudio.from_transforms(json.loads((out / "transforms.json").read_text(encoding="utf-8")))
    assert_spots(out, back_in_run(back, offset - place))
    points = trimesh.load(out / "points.ply", process=False).vertices
    np.testing.assert_allclose(points + offset, scene.xyz + place, atol=1e-5)
    las = laspy.read(export(bare, "las") / "points.las")
    np.testing.assert_allclose(las.xyz, scene.xyz + place, atol=1e-5)


def back_in_run(scene: Scene, shift: np.ndarray) -> Scene:
    return scene.moved(1.0, np.eye(3), shift)


def test_gps_that_only_the_files_know(run: tuple[Path, Scene], tmp_path: Path) -> None:
    """A bare COLMAP model with photos beside it: their EXIF is read."""
    root, scene = run
    bare = tmp_path / "bare"
    shutil.copytree(root / "sparse", bare / "sparse")
    shutil.copytree(root.parent / "die fotos", bare / "images")
    gps, utm = gps_of(scene)
    for view, (lat, lon, height) in zip(scene.views, gps, strict=True):
        path = bare / "images" / view.name
        with Image.open(path) as image:
            exif = image.getexif()
            parts = [(int(v), int(v % 1 * 60), v * 60 % 1 * 60) for v in (lat, lon)]
            exif.get_ifd(0x8825).update({1: "N", 2: parts[0], 3: "E", 4: parts[1], 5: b"\0", 6: height})
            image.save(path, exif=exif)
    assert main(["georeference", str(bare), "--gps-error", "0.5"]) == 0
    found = Georeference.from_json(json.loads((bare / "georeference.json").read_text(encoding="utf-8")))
    np.testing.assert_allclose(found.to_crs(np.array([v.center for v in scene.views])), utm, atol=0.05)


def test_control_points_marked_in_photos(
    run: tuple[Path, Scene], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, scene = run
    world = 12.0 * SPOTS + np.array([2_600_000.0, 1_200_000.0, 400.0])
    table = tmp_path / "paß punkte.csv"
    rows = ["name;X;Y;Z;photo;x;y"]
    for point in range(5):
        for view in scene.views[:3]:
            large = scene.intrinsics(view).resized(640, 480)  # marked in the photos as they are on disk
            x, y = pixels(large, view.cam_from_world, SPOTS[point : point + 1])[0]
            if point == 2 and view is scene.views[0]:
                x += 90  # marked wrongly
            X, Y, Z = world[point]
            rows.append(f"P {point};{X};{Y};{Z};{view.name};{x};{y}")
    table.write_text("\n".join(rows), encoding="utf-8")
    assert main(["georeference", str(root), "--control", str(table), "--crs", "EPSG:2056"]) == 0
    found = Georeference.from_json(json.loads((root / "georeference.json").read_text(encoding="utf-8")))
    assert found.crs.epsg == 2056
    # The wrong mark is named and left out; the point stands by its other two.
    assert f"P 2: the mark in {scene.views[0].name} is off" in capsys.readouterr().out
    assert {name for name, _, _ in found.residuals} == {"P 0", "P 1", "P 2", "P 3", "P 4"}
    np.testing.assert_allclose(found.to_crs(SPOTS), world, atol=1e-5)


def test_known_length(run: tuple[Path, Scene]) -> None:
    root, scene = run
    assert main(["georeference", str(root), "--length", f"{NAMES[0]},{NAMES[3]}=7.5"]) == 0
    found = Georeference.from_json(json.loads((root / "georeference.json").read_text(encoding="utf-8")))
    ends = found.to_crs(np.array([scene.views[0].center, scene.views[3].center]))
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(7.5)
    assert found.gravity == "photos"
    up = found.similarity.rotation @ [0, 0, 1]  # the run's z is up
    assert np.degrees(np.arccos(up[2])) < 2.0
    assert main(["georeference", str(root), "--length", "a,b=7.5"]) == 2
    assert main(["georeference", str(root), "--length", f"{NAMES[0]},{NAMES[3]}=zwei"]) == 2


def test_level_alone_turns_z_up(run: tuple[Path, Scene]) -> None:
    root, scene = run
    assert main(["georeference", str(root), "--level"]) == 0
    found = Georeference.from_json(json.loads((root / "georeference.json").read_text(encoding="utf-8")))
    assert found.method == "level"
    assert found.similarity.scale == 1.0
    assert np.degrees(np.arccos((found.similarity.rotation @ [0, 0, 1])[2])) < 2.0
    back = scene_from_reconstruction(model_of(export(root, "colmap", "--georeferenced") / "sparse" / "0"))
    looks = np.mean([view.cam_from_world[2, :3] for view in back.views], axis=0)
    assert abs(looks[0]) < 1e-9  # the photos look along y
    assert looks[1] > 0
    assert len(back.views) == len(scene.views)
    assert main(["georeference", str(root), "--level", "--gravity", "none"]) == 2


def test_no_gps_says_what_else_there_is(run: tuple[Path, Scene], capsys: pytest.CaptureFixture[str]) -> None:
    root, _ = run
    assert main(["georeference", str(root)]) == 1
    message = capsys.readouterr().err
    assert "--control" in message
    assert "--length" in message
    assert main(["georeference", str(root), "--gravity", "exif"]) == 1
    assert "--gravity photos" in capsys.readouterr().err
    assert not (root / "georeference.json").exists()


def test_gravity_from_exif(run: tuple[Path, Scene]) -> None:
    root, scene = run
    for view in scene.views:
        path = root.parent / "die fotos" / view.name
        with Image.open(path) as image:
            exif = image.getexif()
            down = np.degrees(np.arcsin(-view.cam_from_world[2, 2]))  # z is up in the run: row 2 looks ahead
            exif.get_ifd(0x8769)[0x9405] = -float(down)
            image.save(path, exif=exif, quality=98)
    assert (
        main(["georeference", str(root), "--length", f"{NAMES[0]},{NAMES[3]}=7.5", "--gravity", "exif"]) == 0
    )
    found = Georeference.from_json(json.loads((root / "georeference.json").read_text(encoding="utf-8")))
    assert found.gravity == "exif"
    np.testing.assert_allclose(found.similarity.rotation @ [0, 0, 1], [0, 0, 1], atol=1e-3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("a,b\n1,2\n", "columns"),
        ("name,X,Y,Z,photo,x,y\nP,1,2,drei,a.jpg,1,1\n", "row 2"),
        ("name,X,Y,Z,photo,x,y\nP,1,2,3,a.jpg,1,1\nP,1,2,4,b.jpg,1,1\n", "other coordinates"),
        ("name,X,Y,Z,photo,x,y\nP,1,2,3,nix.jpg,1,1\n", "no photo nix.jpg"),
        ("name,X,Y,Z,photo,x,y\nP,11.5,48.1,3,塔.jpg,1,1\n", "degrees"),
    ],
)
def test_broken_control_files(
    run: tuple[Path, Scene], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    root, _ = run
    table = tmp_path / "control.csv"
    table.write_text(text, encoding="utf-8")
    assert main(["georeference", str(root), "--control", str(table), "--crs", "EPSG:25832"]) == 2
    assert said in capsys.readouterr().err


def test_results_of_an_earlier_state_are_refused_or_marked(
    run: tuple[Path, Scene], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stage that made a result is not done: the command says which, and how to go on."""
    root, _ = run
    manifest = read_manifest(root)
    assert manifest is not None
    manifest.stages["map"] = StageRecord("f", "failed")
    (root / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    for command in (
        ["export", str(root), "--to", "colmap"],
        ["georeference", str(root), "--level"],
        ["evaluate", "poses", str(root), "--truth", str(root)],
    ):
        assert main(command) == 1
        said = capsys.readouterr().err
        assert str(root / "sparse/0") in said
        assert "stage map is not done" in said
        assert "recon reconstruct" in said
    assert not (root / "exports").exists()
    assert main(["evaluate", "run", str(root)]) == 0
    assert "note: " + str(root / "sparse/0") + " is of an earlier state" in capsys.readouterr().out
    picture = tmp_path / "picture.png"
    assert main(["render", str(root), "--out", str(picture), "--size", "64x48", "--layer", "sparse"]) == 0
    assert "note: " + str(root / "sparse/0") + " is of an earlier state" in capsys.readouterr().out
    manifest.stages["map"] = StageRecord("f", "done")
    manifest.stages["fuse"] = StageRecord("f", "stale")
    (root / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    assert main(["export", str(root), "--to", "colmap"]) == 0
    assert main(["export", str(root), "--to", "ply"]) == int((root / "dense" / "points.ply").exists())
