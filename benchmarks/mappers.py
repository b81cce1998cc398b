"""COLMAP's mappers on tracks of rendered scenes, by number of photos: processor seconds, memory and accuracy.

Usage: python benchmarks/mappers.py [--scenes street block] [--photos 50 150] [--tracks 150] [--unknown]
       [--mappers incremental global hierarchical]

Every photo starts so many tracks on the surface of a scene of ``recon.synthetic.large``. They are seen by photos that
stand near and show the place from about the same side, two thirds of these by chance, with 0.4 px of noise; one
observation in fifty is elsewhere in the photo. The view graph has the eight best pairs of every photo. Only mapping
and its last adjustment are timed, each in a process of its own on one thread. ``--unknown``: the focal length is to be
found from a guess that is 10% too long.
"""

from __future__ import annotations

import argparse
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
from _common import machine, table
from jaxtyping import Float64

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.raycasting import depth_and_normals, ray_scene
from recon.graph.tracks import make_tracks, track_matches
from recon.graph.two_view import verify_pair
from recon.graph.types import Tracks
from recon.graph.view_graph import PairEvidence, build_view_graph
from recon.photos.pairs import select_pairs
from recon.photos.types import Photo, PhotoSet
from recon.sfm.adapter import write_database
from recon.sfm.evidence import centre_differences
from recon.sfm.mapping import MappingSettings, mapper_named
from recon.synthetic.large import LARGE_SCENES, large_scene_parts

_SIZE = (320, 240)
_NOISE_PX, _SEEN, _ELSEWHERE = 0.4, 2 / 3, 1 / 50
_SAME_SIDE = np.cos(np.radians(30))
_STEPS = 6.0  # a photo sees tracks of photos within so many times the usual distance of neighbours


def seen_tracks(scene: str, photos: int, each: int) -> tuple[tuple[PinholeView, ...], Tracks]:
    """Cameras of a scene, and tracks as its photos could have them."""
    mesh, _, views = large_scene_parts(scene, photos, _SIZE, coarseness=2.0)
    rng, rays = np.random.default_rng(0), ray_scene(mesh)
    depths = [depth_and_normals(mesh, view, rays)[0] for view in views]
    centres = np.array([view.center for view in views])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    reach = _STEPS * np.median(np.sort(apart, axis=1)[:, 1])
    places: list[Float64[np.ndarray, "n 3"]] = []
    for view, depth in zip(views, depths, strict=True):
        rows, columns = np.nonzero(depth > 0)
        chosen = rng.choice(len(rows), min(each, len(rows)), replace=False)
        x, y = columns[chosen].astype(float), rows[chosen].astype(float)
        ray = np.stack([x, y, np.ones(len(x))], -1) @ np.linalg.inv(view.K).T
        places.append(
            (ray * depth[rows[chosen], columns[chosen]][:, None]) @ view.cam_from_world[:, :3] + view.center
        )
    xyz = np.concatenate(places)
    starts = np.repeat(np.arange(photos), [len(one) for one in places])
    track, photo, xy = [], [], []
    for i, (view, depth) in enumerate(zip(views, depths, strict=True)):
        pixel, z = view.project(xyz)
        near = np.rint(pixel).astype(int)
        own, other = xyz - centres[starts], xyz - view.center
        far = np.linalg.norm(own, axis=1), np.linalg.norm(other, axis=1)
        fine = (z > 0) & (near >= 0).all(axis=1) & (near < _SIZE).all(axis=1) & (apart[i, starts] <= reach)
        fine &= (own * other).sum(axis=1) >= _SAME_SIDE * far[0] * far[1]
        fine &= (rng.random(len(xyz)) < _SEEN) | (starts == i)
        rows = np.flatnonzero(fine)
        rows = rows[np.abs(depth[near[rows, 1], near[rows, 0]] - z[rows]) < 0.005 * z[rows]]
        at = pixel[rows] + rng.normal(0, _NOISE_PX, (len(rows), 2))
        wrong = rng.random(len(rows)) < _ELSEWHERE
        at[wrong] = rng.uniform(0, _SIZE, (int(wrong.sum()), 2))
        track.append(rows)
        photo.append(np.full(len(rows), i))
        xy.append(at)
    joined = np.concatenate(track)
    several = np.bincount(joined, minlength=len(xyz))[joined] >= 2
    return views, make_tracks(joined[several], np.concatenate(photo)[several], np.concatenate(xy)[several])


def prepare(folder: Path, scene: str, photos: int, each: int, unknown: bool) -> int:
    """Write a database, and beside it what a mapper needs besides; returns the number of observations."""
    views, tracks = seen_tracks(scene, photos, each)
    K = views[0].K
    known = Intrinsics("PINHOLE", (K[0, 0], K[1, 1], K[0, 2], K[1, 2]), *_SIZE, True, True)
    guess = Intrinsics("SIMPLE_RADIAL", (1.1 * K[0, 0], K[0, 2], K[1, 2], 0.0), *_SIZE, False, False)
    size = (*_SIZE, *_SIZE)
    photo_set = PhotoSet(
        tuple(Photo(i, view.name, f"{i:064d}", *size, 0) for i, view in enumerate(views)),
        (guess if unknown else known,),
    )
    shared: Counter[tuple[int, int]] = Counter()
    first = np.searchsorted(tracks.track_id, np.arange(tracks.count + 1))
    for track in range(tracks.count):
        shared.update(combinations(tracks.photo_id[first[track] : first[track + 1]].tolist(), 2))
    pairs = select_pairs(photos, {pair: count for pair, count in shared.items() if count >= 15})
    camera = photo_set.cameras[0]
    found = {}
    for pair, match in track_matches(tracks, list(pairs)).items():
        geometry = verify_pair(match.xy_a, match.xy_b, camera, camera, max_error_px=4.0, seed=0)
        if geometry.model != "none":
            found[pair] = geometry
    graph = build_view_graph(
        photo_set, {pair: PairEvidence(geometry, len(geometry.inliers)) for pair, geometry in found.items()}
    )
    write_database(folder / "database.db", photo_set, tracks, found)
    truth = {view.name: view.center for view in views}
    (folder / "inputs.pickle").write_bytes(pickle.dumps((photo_set, graph, truth)))
    return len(tracks.track_id)


def one(folder: Path, mapper: str) -> None:
    """Map what was prepared; prints the figures."""
    photo_set, graph, truth = pickle.loads((folder / "inputs.pickle").read_bytes())
    began = time.process_time()
    result = mapper_named(mapper, len(photo_set.photos))(  # type: ignore[arg-type]
        folder / "database.db", photo_set, graph, MappingSettings(threads=1)
    )
    took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if result.best is None:
        print(took, peak, 0, len(result.reconstructions), "nan", "nan")
        return
    posed = (image for image in result.best.images.values() if image.has_pose)
    centres = {image.name: np.array(image.projection_center()) for image in posed}
    names = {name: i for i, name in enumerate(sorted(centres))}
    extent = np.linalg.norm(np.ptp(np.array(list(truth.values())), axis=0))
    errors = centre_differences(
        {names[name]: centre for name, centre in centres.items()},
        {names[name]: truth[name] for name in names},
    )
    print(took, peak, len(names), len(result.reconstructions), errors.mean() / extent, errors.max() / extent)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", nargs="+", choices=LARGE_SCENES, default=["street", "block"])
    parser.add_argument("--photos", nargs="+", type=int, default=[50, 150])
    parser.add_argument("--mappers", nargs="+", default=["incremental", "global", "hierarchical"])
    parser.add_argument("--tracks", type=int, default=150)
    parser.add_argument("--unknown", action="store_true")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        one(args.one, args.mappers[0])
        return
    print(machine())
    rows = []
    for scene in args.scenes:
        for photos in args.photos:
            with tempfile.TemporaryDirectory() as temporary:
                count = prepare(Path(temporary), scene, photos, args.tracks, args.unknown)
                for mapper in args.mappers:
                    command = [sys.executable, __file__, "--one", temporary, "--mappers", mapper]
                    printed = subprocess.run(
                        command, check=True, capture_output=True, text=True
                    ).stdout.split()
                    took, peak, registered, models, mean, most = map(float, printed[-6:])
                    row = [
                        scene,
                        photos,
                        count,
                        mapper,
                        f"{took:.1f}",
                        f"{peak:.0f}",
                        int(registered),
                        int(models),
                    ]
                    rows.append([*row, f"{mean:.3%}", f"{most:.3%}"])
                    print(*rows[-1], flush=True)
    headers = ["scene", "photos", "observations", "mapper", "CPU s", "peak MB", "in the model", "models"]
    print()
    print(table(rows, [*headers, "centres off, mean", "at most"]))


if __name__ == "__main__":
    main()
