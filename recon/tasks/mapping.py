"""Parts of the stage ``map`` beside its steps: COLMAP's database, the pair to start from, the verdict in the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recon.core.colmap import pycolmap
from recon.engine.stage import StageContext
from recon.errors import ReconError, UsageError
from recon.graph.tracks import track_matches
from recon.graph.two_view import geometry_of_posed, verify_pair
from recon.graph.types import Tracks, TwoViewGeometry, ViewGraph
from recon.photos.types import PhotoSet
from recon.run.folder import DATABASE, TRUST, RunFolder
from recon.sfm.adapter import posed_cameras, write_database
from recon.sfm.final_model import FinalModel, checked, polished
from recon.sfm.mapping import Mapper, MappingResult, MappingSettings, map_known, with_model_first
from recon.sfm.trust import Thresholds, Trust, only_turns, turns_of
from recon.tasks.joining import joined_by_flow
from recon.tasks.tracks import greys_of_surfaces


class TrackDatabase:
    """COLMAP's database of a run: tracks as keypoints and matches, geometries of the view graph's edges.

    Args:
        edges: pairs of photo ids.
        max_error: inlier threshold of a pair's geometry, pixels.
    """

    def __init__(self, work: StageContext, edges: Iterable[tuple[int, int]], max_error: float) -> None:
        self.work, self.max_error = work, max_error
        self.edges = sorted((min(edge), max(edge)) for edge in edges)

    def write(
        self, photo_set: PhotoSet, tracks: Tracks, model: pycolmap.Reconstruction | None = None
    ) -> Path:
        """Write it for these cameras and tracks; returns its path.

        Args:
            model: whose cameras tell the geometry of their pairs. That of other pairs is estimated from the tracks.
        """
        matches = track_matches(tracks, self.edges)
        posed = {} if model is None else posed_cameras(model, photo_set)

        def geometry(pair: tuple[int, int]) -> TwoViewGeometry:
            cameras = [photo_set.cameras[photo_set.photos[number].camera] for number in pair]
            match, found = matches[pair], None
            if all(number in posed for number in pair) and all(
                one.known or one.has_focal_prior for one in cameras
            ):
                found = geometry_of_posed(
                    match.xy_a, match.xy_b, *(posed[number] for number in pair), max_error_px=self.max_error
                )
            if found is not None:
                return found
            return verify_pair(
                match.xy_a, match.xy_b, *cameras, max_error_px=self.max_error, seed=self.work.seed
            )

        pairs = sorted(matches)
        made = zip(pairs, self.work.map(geometry, pairs, "geometry of tracks"), strict=True)
        geometries = {pair: geometry for pair, geometry in made if geometry.model != "none"}
        with self.work.writing(DATABASE) as path:
            write_database(path, photo_set, tracks, geometries)
        return self.work.path(DATABASE)


@dataclass(frozen=True)
class FinalOptions:
    """How the models of a mapping become the final one; see ``MapSettings``."""

    model: int
    test_cameras: bool
    polish: bool


def final_model(
    run: RunFolder,
    photo_set: PhotoSet,
    given: Mapping[int, Float[np.ndarray, "3 4"]] | None,
    mapper: Mapper,
    options: MappingSettings,
    how: FinalOptions,
    work: StageContext,
) -> tuple[FinalModel, ViewGraph]:
    """Cameras and points of the run's tracks, and the view graph that they go by; the database is that of the result.

    Args:
        given: poses that stay as they are.

    Raises:
        ReconError: no cameras could be found, or there is no such model.
    """
    graph, tracks = run.view_graph(), run.tracks()
    database = TrackDatabase(work, graph.edges, options.max_error)
    path = database.write(photo_set, tracks)
    if given is not None:
        result = map_known(photo_set, tracks, given, options)
    else:
        result = map_with_progress(mapper, path, photo_set, graph, options, work)
    work.remove(TRUST)
    if result.best is None:
        raise tell_no_model(result, photo_set, tracks, work)
    joined = joined_by_flow(result, photo_set, graph, tracks, options, work) if given is None else None
    if joined is not None:
        result, photo_set, graph, tracks = joined.result, joined.photos, joined.graph, joined.tracks
        database = TrackDatabase(work, graph.edges, options.max_error)
        database.write(photo_set, tracks)
    try:
        result = with_model_first(result, how.model, photo_set, graph)
    except ValueError as error:
        raise ReconError(f"map.model = {how.model}: {error}, counted from 0") from None
    final = FinalModel(result, photo_set, tracks, options)
    if given is None:
        final = checked(final, graph, mapper=mapper, write=database.write, test_cameras=how.test_cameras)
        for note in final.notes:
            work.log.info(note)
    if how.polish:
        final = polished(final, greys_of_surfaces(run), threads=work.threads, memory=work.memory)
        database.write(final.photos, final.tracks, final.model)
    return final, graph


def starting_pair(
    names: str, photo_set: PhotoSet, graph: ViewGraph, *, usable: bool
) -> tuple[int, int] | None:
    """Ids of the two photos that a user names to start incremental mapping from, None where none are named.

    Args:
        names: as ``A.jpg,B.jpg``.
        usable: cameras are estimated, by the incremental mapper.

    Raises:
        UsageError: they are not two photos that the view graph joins, or the mapper does not start from a pair.
    """
    if not names:
        return None
    both = [name.strip() for name in names.split(",")]
    ids = {photo.name: photo.id for photo in photo_set.photos}
    unknown = [name for name in both if name not in ids]
    if len(both) != 2 or both[0] == both[1] or unknown:
        what = f"there is no photo {unknown[0]!r}" if unknown else "two photos were expected"
        raise UsageError(f"map.first_pair = {names!r}: {what}; say A.jpg,B.jpg")
    if not usable:
        raise UsageError(
            "map.first_pair is for incremental mapping of unknown cameras: --set map.mapper=incremental"
        )
    pair = (ids[both[0]], ids[both[1]])
    if not graph.has_edge(*pair):
        raise UsageError(
            f"map.first_pair = {names!r}: the view graph does not join these photos (verification.json "
            "says why); choose two that it joins"
        )
    return pair


def map_with_progress(
    mapper: Mapper,
    database: Path,
    photo_set: PhotoSet,
    graph: ViewGraph,
    options: MappingSettings,
    work: StageContext,
) -> MappingResult:
    """Cameras and points by COLMAP's mapper, with a progress bar."""
    with work.progress(len(photo_set.photos), "mapping", unit="photo") as bar:
        done = [0]

        def report(registered: int, _total: int) -> None:
            bar.update(max(0, registered - done[0]))
            done[0] = max(done[0], registered)

        return mapper(database, photo_set, graph, options, progress=report)


def tell_verdict(trust: Trust, work: StageContext, *, refuse: bool) -> None:
    """Write the verdict and warn of what is doubtful.

    Raises:
        ReconError: there is no reconstruction, and ``refuse`` is set.
    """
    work.write_json(TRUST, trust.as_json())
    for reason in trust.reasons:
        work.warn(f"{reason.verdict}: {reason.what}. {reason.advice}")
    if trust.verdict == "not a reconstruction" and refuse:
        first = trust.reasons[0]
        raise ReconError(
            f"this is not a reconstruction. {first.what}. {first.advice}. "
            "(--set map.refuse=false goes on with what there is)"
        )


def tell_no_model(
    result: MappingResult, photo_set: PhotoSet, tracks: Tracks, work: StageContext
) -> ReconError:
    """The error of photos without a model; where the camera only turned, this is written as the verdict too."""
    turns = turns_of(tracks, photo_set, None, 0.0, work.seed)
    if turns.share >= Thresholds().turns_only:
        reason = only_turns(turns)
        work.write_json(
            TRUST,
            {
                "verdict": reason.verdict,
                "reasons": [asdict(reason)],
                "figures": {"turns_explain": turns.share},
            },
        )
        return ReconError(f"this is not a reconstruction. {reason.what}. {reason.advice}")
    reasons = "; ".join(f"{out.name}: {out.reason}" for out in result.left_out[:5])
    return ReconError(
        "no cameras could be found: the photos do not overlap enough, or show too little texture or only "
        f"a turn of the camera. {reasons}. Take more photos with two thirds overlap, or try "
        "--quality high or another --recipe"
    )
