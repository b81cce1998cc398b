"""Control points from files of several programs to an adjusted georeference, on the rendered hamlet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.cli import main
from recon.exports.control import crs_in_words, read_control_points
from recon.exports.georeference import fit_bend
from recon.exports.precision import find_precision, read_precision, with_sigma
from recon.exports.source import load_scene, read_georeference
from recon.photos.exif import position_accuracy
from recon.run.folder import PRECISION, RunFolder
from recon.synthetic.aerial import aerial_height
from recon.synthetic.scene import SyntheticScene
from tests.unit.maps.conftest import LAND_FROM_MODEL, OFFSET

SPOTS = np.array([(-9, -8), (0, -9), (9, -12), (-3, 3), (6, 4), (-12, 1), (-1, 6), (18, 0)], float)
PLACES = np.column_stack([SPOTS, aerial_height(*SPOTS.T)])

Row = tuple[str, np.ndarray, str, float, float]


def marks(hamlet: SyntheticScene, seed: int = 0) -> list[Row]:
    """Name, measured coordinates, photo and pixels of every spot in every photo that shows it."""
    rng = np.random.default_rng(seed)
    rows = []
    for k, place in enumerate(PLACES):
        world = place + OFFSET + rng.normal(0, 0.01, 3)
        for view, depth in zip(hamlet.views, hamlet.depths, strict=True):
            (x, y), z = (value[0] for value in view.project(place[None]))
            inside = 2 < x < view.width - 3 and 2 < y < view.height - 3
            if inside and abs(depth[round(y), round(x)] - z) < 0.02 * z:
                u, v = rng.normal(0, 0.2, 2)
                rows.append((f"P{k + 1}", world, view.name, x + u, y + v))
    return rows


def odm(rows: list[Row], order: tuple[int, int, int] = (0, 1, 2), crs: str = "EPSG:25832") -> str:
    lines = [crs]
    for name, world, photo, x, y in rows:
        a, b, c = world[list(order)]
        lines.append(f"{a:.4f} {b:.4f} {c:.4f} {x:.3f} {y:.3f} {photo} {name}")
    return "\n".join(lines)


@pytest.fixture
def run(hamlet_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(hamlet_run, tmp_path / "run")
    (tmp_path / "run" / "georeference.json").unlink()
    return tmp_path / "run"


Georeferencing = Callable[..., tuple[int, str]]


@pytest.fixture
def georeference(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Georeferencing:
    def go(text: str, *options: str, name: str = "gcp_list.txt") -> tuple[int, str]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        code = main(["georeference", str(run), "--control", str(tmp_path / name), *options])
        told = capsys.readouterr()
        return code, told.out + told.err

    return go


def test_control_adjusts_and_checks_tell_the_truth(
    hamlet: SyntheticScene, run: Path, georeference: Georeferencing
) -> None:
    code, said = georeference(odm(marks(hamlet)), "--check", "P4,P7", "--mark-error", "0.2")
    assert code == 0
    assert "6 control points" in said
    found = read_georeference(RunFolder(run))
    assert found.crs.epsg == 25832
    assert {one.name for one in found.points if one.kind == "check"} == {"P4", "P7"}
    assert not any(one.beyond for one in found.points)
    assert "6 of 6 coordinates within twice" in said
    model = LAND_FROM_MODEL.inverse()(PLACES)
    assert np.abs(found.to_crs(model) - PLACES - OFFSET).max() < 0.12
    adjusted = load_scene(RunFolder(run / "adjusted"))
    assert len(adjusted.views) == len(hamlet.views)
    again = type(found).from_json(json.loads(json.dumps(found.to_json())))
    assert (again.bend, again.points, again.residuals) == (found.bend, found.points, found.residuals)


def test_a_side_without_control_points_is_said(
    hamlet: SyntheticScene, run: Path, georeference: Georeferencing
) -> None:
    """With the points of the south-east left out, the far end of it is named; what is stated of them is right."""
    assert "leave a side out" not in georeference(odm(marks(hamlet)), "--mark-error", "0.2")[1]
    code, said = georeference(odm(marks(hamlet)), "--check", "P2,P3,P5,P8", "--mark-error", "0.2")
    assert code == 0
    line = next(line for line in said.splitlines() if "leave a side out" in line)
    x, y = (float(line.split(f" {axis} ")[1].split(",")[0]) for axis in "xy")
    assert x > OFFSET[0]
    assert y - OFFSET[1] < -15
    points = read_georeference(RunFolder(run)).points
    assert not any(one.beyond for one in points)
    known, checked = ([max(p.sigma) for p in points if p.kind == kind] for kind in ("control", "check"))
    assert np.median(checked) > 2 * np.median(known)


def test_the_report_and_exports_tell_of_it(
    hamlet: SyntheticScene, run: Path, georeference: Georeferencing
) -> None:
    (run / "report.html").write_text("<p>before</p><!-- survey --><!-- /survey --><p>after</p>")
    for _ in range(2):
        code, said = georeference(odm(marks(hamlet)), "--check", "P4")
        assert code == 0
        assert "the report tells of it" in said
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<p>before</p>")
    assert page.endswith("<p>after</p>")
    assert page.count("<h2") == 1
    found = read_georeference(RunFolder(run))
    check = next(one for one in found.points if one.kind == "check")
    assert f"{1000 * check.error[0]:+.1f} ± {1000 * check.sigma[0]:.1f}" in page
    assert all(view.name in page for view in hamlet.views)
    assert main(["export", str(run), "--to", "ply", "--georeferenced"]) == 0
    head = (run / "exports" / "ply" / "points.ply").read_bytes()[:600].decode("ascii", "ignore")
    assert "property float sigma_z" in head
    mark = json.loads((run / "exports" / "ply" / "export.json").read_text())
    assert len(mark["camera_position_deviations"]) == len(hamlet.views)


def test_precision_is_kept_and_read_back(
    hamlet: SyntheticScene, run: Path, georeference: Georeferencing
) -> None:
    assert georeference(odm(marks(hamlet)))[0] == 0
    kept = read_precision(run / PRECISION)
    assert kept is not None
    names = [view.name for view in hamlet.views]
    place = PLACES[3] + OFFSET - np.array(read_georeference(RunFolder(run)).offset)
    sigma = kept.sigma(place, names)
    assert sigma is not None
    assert 0.003 < sigma.max() < 0.2
    assert kept.sigma(place, names[:1]) is None
    apart = kept.length_sigma(place, place + np.array([1.0, 0, 0]), names, names)
    assert apart is not None
    assert 0 < apart < 2 * sigma.max()


def test_without_georeference_the_shape_has_a_precision(run: Path) -> None:
    folder = RunFolder(run)
    scene = load_scene(folder)
    found = find_precision(folder, scene, None)
    assert found is not None
    sigma = found.sigma(scene.xyz[0], [view.name for view in scene.views])
    assert sigma is not None
    assert 0 < sigma.max() < 0.5


def test_a_wrong_point_is_named(hamlet: SyntheticScene, georeference: Georeferencing) -> None:
    rows = [
        (name, world + np.array([0.0, 0.6, 0.0]) * (name == "P5"), *rest)
        for name, world, *rest in marks(hamlet)
    ]
    code, said = georeference(odm(rows), "--mark-error", "0.2")  # type: ignore[arg-type]
    assert code == 0
    assert "wrong point: P5 is off by" in said
    assert said.count("wrong point") == 1


def test_a_wrong_mark_is_named(hamlet: SyntheticScene, georeference: Georeferencing) -> None:
    rows = marks(hamlet)
    at = next(i for i, row in enumerate(rows) if row[0] == "P4")
    name, world, photo, x, y = rows[at]
    rows[at] = (name, world, photo, x + 35, y)
    code, said = georeference(odm(rows))
    assert code == 0
    assert f"P4: the mark in {photo} is off by 3" in said


def test_swapped_axes_and_wrong_zones_are_said(
    hamlet: SyntheticScene, run: Path, georeference: Georeferencing
) -> None:
    code, said = georeference(odm(marks(hamlet), (1, 0, 2)))
    assert code == 2
    assert "X and Y are swapped" in said
    code, said = georeference(odm(marks(hamlet), (1, 0, 2), "local").replace("local", "+proj=unknown"))
    assert code == 2
    assert "are swapped" in said
    with_gps(run, np.array(OFFSET))
    code, said = georeference(odm(marks(hamlet), crs="EPSG:25833"))
    assert code == 2
    assert "--crs EPSG:25832" in said
    assert georeference(odm(marks(hamlet)))[0] == 0


@pytest.mark.parametrize("exact", [False, True])
def test_positions_of_photos_count_by_their_accuracy(
    exact: bool, hamlet: SyntheticScene, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Photos that say that their GPS is good to 3 cm adjust the cameras; others leave them where they are."""
    pyproj = pytest.importorskip("pyproj")
    to_geodetic = pyproj.Transformer.from_crs(32632, 4326, always_xy=True)
    rng = np.random.default_rng(1)
    photos = json.loads((run / "photos.json").read_text())
    (tmp_path / "files").mkdir()
    for photo, view in zip(photos["photos"], hamlet.views, strict=True):
        x, y, z = view.center + OFFSET + rng.normal(0, 0.03, 3)
        longitude, latitude = to_geodetic.transform(x, y)
        photo["latitude_longitude_altitude"] = [latitude, longitude, z]
        exif = Image.Exif()
        exif[0x010F] = "maker"
        if exact:
            exif.get_ifd(0x8825)[31] = 0.03
        Image.new("RGB", (8, 8)).save(tmp_path / "files" / view.name, exif=exif)
    (run / "photos.json").write_text(json.dumps(photos))
    options = ["--photos", str(tmp_path / "files"), "--gps-error", "0.5"]
    assert main(["georeference", str(run), *options]) == 0
    said = capsys.readouterr().out
    assert ("adjusted:" in said) == exact
    assert ("say how exact" in said) == exact
    found = read_georeference(RunFolder(run))
    assert (found.bend is not None) == exact
    assert (run / "adjusted" / "images.bin").is_file() == exact
    kept = read_precision(run / PRECISION)
    assert kept is not None
    place = PLACES[3] + OFFSET - np.array(found.offset)
    sigma = kept.sigma(place, [view.name for view in hamlet.views])
    assert sigma is not None
    assert (sigma.max() < 0.3) if exact else (sigma.max() > 1.0)
    off = found.to_crs(LAND_FROM_MODEL.inverse()(PLACES)) - PLACES - OFFSET
    assert np.abs(off).max() < 0.3


def test_no_marks_say_how_to_make_them(georeference: Georeferencing) -> None:
    code, said = georeference("name,X,Y,Z\nP1,1,2,3\n", name="points.csv")
    assert code == 2
    assert "recon targets" in said
    assert "recon view" in said


def test_marks_may_be_in_a_file_of_their_own(
    hamlet: SyntheticScene, run: Path, georeference: Georeferencing
) -> None:
    rows = marks(hamlet)
    lines = ["name,photo,x,y", *(f"{name},{photo},{x},{y}" for name, _, photo, x, y in rows)]
    (run / "marks.csv").write_text("\n".join(lines), encoding="utf-8")
    places = {name: world for name, world, *_ in rows}
    lines = ["name,X,Y,Z,sX,sY,sZ,kind"]
    lines += [
        f"{name},{w[0]},{w[1]},{w[2]},0.01,0.01,0.01,{'check' if name == 'P2' else ''}"
        for name, w in places.items()
    ]
    code, said = georeference("\n".join(lines), "--crs", "EPSG:25832", name="points.csv")
    assert code == 0, said
    assert "1 check points" in said


def test_metashape_table_and_markers(tmp_path: Path) -> None:
    table = tmp_path / "markers.csv"
    table.write_text(
        '# CoordinateSystem: PROJCS["WGS 84 / UTM zone 32N",AUTHORITY["EPSG","32632"]]\n'
        "#Label,X/Easting,Y/Northing,Z/Altitude,X_accuracy,Y_accuracy,Z_accuracy,Enable\n"
        "A,691500.1,5334700.2,519.3,0.01,0.02,0.03,1\n"
        "B,691510.1,5334710.2,520.3,0.01,0.02,0.03,0\n"
        "# Total\n"
    )
    found = read_control_points(table)
    assert found.crs == "EPSG:32632"
    assert found.world["A"] == (691500.1, 5334700.2, 519.3)
    assert found.sigma["B"] == (0.01, 0.02, 0.03)
    assert found.checks == {"B"}
    xml = tmp_path / "markers.xml"
    xml.write_text(
        '<?xml version="1.0"?><document version="1.2.0"><chunk><cameras><camera id="0" label="IMG_1"/>'
        '<camera id="1" label="IMG_2"/></cameras><markers><marker id="0" label="A"><reference x="1" y="2" z="3" '
        'sx="0.01" sy="0.02" sz="0.03" enabled="false"/></marker></markers><frames><frame id="0"><markers>'
        '<marker marker_id="0"><location camera_id="0" pinned="true" x="10.5" y="20.0"/>'
        '<location camera_id="1" pinned="false" x="1" y="2"/></marker></markers></frame></frames></chunk></document>'
    )
    found = read_control_points(xml)
    assert found.sightings == {"A": [("IMG_1", 10.0, 19.5)]}
    assert found.world == {"A": (1.0, 2.0, 3.0)}
    assert found.checks == {"A"}
    xml.write_text("<document><broken")
    with pytest.raises(Exception, match="no XML"):
        read_control_points(xml)


def test_metashape_2_names_its_columns_otherwise(tmp_path: Path) -> None:
    """One column for the accuracies of all axes, the flag before the coordinates, local coordinates without names."""
    table = tmp_path / "markers.csv"
    table.write_text(
        '# CoordinateSystem: LOCAL_CS["Local Coordinates (m)",LOCAL_DATUM["Local Datum",0],'
        'UNIT["metre",1,AUTHORITY["EPSG","9001"]]]\n'
        "Label,Enable,X,Y,Z,Accuracy_X/Y/Z_(m),Error_(m),X_error,Y_error,Z_error,X_est,Y_est,Z_est\n"
        "A,1,1.5,2.5,3.5,0.01/0.02/0.03,0.02,0.01,0.01,0.01,1.51,2.51,3.51\n"
        "B,0,4.5,5.5,6.5,0.005,0.02,0.01,0.01,0.01,4.51,5.51,6.51\n"
    )
    found = read_control_points(table)
    assert found.crs == ""
    assert found.world == {"A": (1.5, 2.5, 3.5), "B": (4.5, 5.5, 6.5)}
    assert found.sigma == {"A": (0.01, 0.02, 0.03), "B": (0.005, 0.005, 0.005)}
    assert found.checks == {"B"}
    table.write_text(
        "#Label,X/East,Y/North,Z/Altitude,Accuracy_X/Y_(m),Accuracy_Z_(m),Error_(m),X_error,X_est,Y_est,Z_est\n"
        '"GCP 14",3119.6,1514.5,304.8,0.01,0.02,0.008,-0.004,1,2,3\n'
    )
    found = read_control_points(table)
    assert found.world == {"GCP 14": (3119.6, 1514.5, 304.8)}
    assert found.sigma == {"GCP 14": (0.01, 0.01, 0.02)}
    table.write_text("#Label,X/East,Y/North,Z/Altitude,Accuracy_(m)\nA,1,2,3,0.04\nB,1,2,x,\n")
    with pytest.raises(Exception, match="row 3: 'x' is not a number"):
        read_control_points(table)


def test_rows_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "gcp_list.txt"
    path.write_text("# by hand\n\nEPSG:32632\n1 2 3 4 5 My%20photo.jpg A\n# more\n1 2 nan 4 5 b.jpg B\n")
    with pytest.raises(Exception, match="row 6: 'nan' is not a number"):
        read_control_points(path)
    path.write_text("EPSG:32632\n1 2 3 4 5 My%20photo.jpg A\n")
    assert read_control_points(path).sightings == {"A": [("My photo.jpg", 4.0, 5.0)]}
    path.write_text("PUWG1992\n1 2 3 4 5 a.jpg\n")
    with pytest.raises(Exception, match="EPSG:CODE"):
        read_control_points(path)


def with_gps(run: Path, place: np.ndarray) -> None:
    """Give all photos of a run the same position, given in EPSG:25832."""
    pyproj = pytest.importorskip("pyproj")
    longitude, latitude = pyproj.Transformer.from_crs(25832, 4326, always_xy=True).transform(*place[:2])
    photos = json.loads((run / "photos.json").read_text())
    for photo in photos["photos"]:
        photo["latitude_longitude_altitude"] = [latitude, longitude, float(place[2])]
    (run / "photos.json").write_text(json.dumps(photos))


@pytest.mark.parametrize("target", ["auto", "EPSG:25832", "EPSG:31468"])
def test_degrees_become_metres(
    target: str, hamlet: SyntheticScene, run: Path, georeference: Georeferencing
) -> None:
    """As OpenDroneMap's list has them with EPSG:4326; X is the longitude."""
    pyproj = pytest.importorskip("pyproj")
    to_degrees = pyproj.Transformer.from_crs(25832, 4326, always_xy=True)
    lines, swapped = ["EPSG:4326"], ["EPSG:4326"]
    for name, world, photo, x, y in marks(hamlet):
        a, b = to_degrees.transform(*world[:2])
        lines.append(f"{a:.10f} {b:.10f} {world[2]:.4f} {x:.3f} {y:.3f} {photo} {name}")
        swapped.append(f"{b:.10f} {a:.10f} {world[2]:.4f} {x:.3f} {y:.3f} {photo} {name}")
    with_gps(run, np.array(OFFSET))
    code, said = georeference("\n".join(lines), "--mark-error", "0.2", "--crs", target)
    assert code == 0, said
    found = read_georeference(RunFolder(run))
    epsg = 32632 if target == "auto" else int(target[5:])
    assert found.crs.epsg == epsg
    expected = np.column_stack(
        pyproj.Transformer.from_crs(25832 if target == "auto" else 4326, epsg, always_xy=True).transform(
            *(
                (PLACES + OFFSET)[:, :2].T
                if target == "auto"
                else to_degrees.transform(*(PLACES + OFFSET)[:, :2].T)
            )
        )
    )
    off = found.to_crs(LAND_FROM_MODEL.inverse()(PLACES))[:, :2] - expected
    assert np.abs(off).max() < 0.12
    code, said = georeference("\n".join(swapped))
    assert code == 2
    assert "X and Y are swapped" in said


def test_degrees_without_a_word_are_refused(hamlet: SyntheticScene, georeference: Georeferencing) -> None:
    rows = [(name, np.array([11.5, 48.1, 500.0]), *rest) for name, _, *rest in marks(hamlet)]
    code, said = georeference(odm(rows))  # type: ignore[arg-type]
    assert code == 2
    assert "--crs EPSG:4326 takes degrees" in said
    rows = [(name, np.array([691500.0, 5334700.0, 500.0]), *rest) for name, _, *rest in marks(hamlet)]
    code, said = georeference(odm(rows, crs="EPSG:4326"))  # type: ignore[arg-type]
    assert code == 2
    assert "these are none" in said


def test_codes_of_wkt_agree_with_proj() -> None:
    pyproj = pytest.importorskip("pyproj")
    for epsg in (32632, 25832, 2056, 31468, 4326, 4258, 5555, 32756):
        for version in ("WKT1_GDAL", "WKT2_2019"):
            try:
                text = pyproj.CRS.from_epsg(epsg).to_wkt(version)
            except pyproj.exceptions.CRSError:
                continue
            horizontal = 25832 if epsg == 5555 else epsg  # ETRS89 / UTM 32N with heights
            if text:
                assert crs_in_words(text) == f"EPSG:{horizontal}", text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("WGS84 UTM 32N", "EPSG:32632"),
        ("ETRS89 / UTM zone 32N", "EPSG:25832"),
        ("WGS84 longlat", "EPSG:4326"),
        ("+proj=longlat +datum=WGS84", "EPSG:4326"),
        ("+proj=utm +zone=10 +ellps=WGS84 +datum=WGS84 +units=m +no_defs", "EPSG:32610"),
        ("+proj=utm +zone=56 +south", "EPSG:32756"),
        ("EPSG:2056", "EPSG:2056"),
        ("+proj=lcc", ""),
    ],
)
def test_projections_in_words(text: str, code: str) -> None:
    assert crs_in_words(text) == code


def test_accuracy_of_positions_in_metadata() -> None:
    xmp = b'<x drone-dji:RtkStdLon="0.012" drone-dji:RtkStdLat="0.013" drone-dji:RtkStdHgt="0.027"/>'
    plain = Image.Exif()
    assert position_accuracy(plain, xmp) == (0.012, 0.013, 0.027)
    assert position_accuracy(plain) is None
    plain.get_ifd(0x8825)[31] = 1.5
    assert position_accuracy(plain) == (1.5, 1.5, 3.0)


def test_bends_are_found_again() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(-3, 5, (400, 3)) * [1, 1, 0.2]

    def bowl(points: np.ndarray) -> np.ndarray:
        lifted = 0.01 * (points[:, :2] ** 2).sum(axis=1)
        return np.asarray(points + np.column_stack([0 * lifted, 0 * lifted, lifted]))

    after = bowl(before)
    after[:5] += 1.0  # a few that moved otherwise
    bend = fit_bend(before, after)
    probe = rng.uniform(-3, 5, (50, 3)) * [1, 1, 0.2]
    assert np.abs(bend(probe) - bowl(probe)).max() < 0.005
    assert bend.largest == pytest.approx(np.abs(bowl(before) - before).max(), rel=0.05)
    level = fit_bend(before * [1, 1, 0], bowl(before * [1, 1, 0]))  # all in a plane
    assert np.isfinite(level(probe)).all()


@pytest.mark.parametrize(
    ("value", "sigma", "said"),
    [
        (2.4034, 0.0042, "2.4034 m ± 4.2 mm"),
        (2.4034, 0.013, "2.403 m ± 1.3 cm"),
        (120.0, 0.25, "120.00 m ± 25 cm"),
        (5.0, None, "5 m"),
        (5.0, 12.0, "5 m ± 12 m"),
    ],
)
def test_lengths_with_deviation(value: float, sigma: float | None, said: str) -> None:
    assert with_sigma(value, sigma, "m") == said
