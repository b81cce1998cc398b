"""From the models of a mapping to the final one: cameras tested, photos registered again, observations refined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from recon.core.colmap import photo_id, pycolmap
from recon.graph.types import Tracks, ViewGraph
from recon.graph.view_graph import gap_between
from recon.photos.types import PhotoSet
from recon.sfm.camera_tests import CameraTest
from recon.sfm.loop_closing import close_loops
from recon.sfm.mapping import (
    Mapper,
    MappingResult,
    MappingSettings,
    halves_of,
    polish_model,
    with_fixed_intrinsics,
)
from recon.sfm.reregistration import reregister_photos
from recon.sfm.tested_mapping import map_with_tested_cameras
from recon.sfm.track_refinement import RefinementSettings
from recon.sfm.trust import MappingFacts, Trust, figures_of, judge


@dataclass(frozen=True)
class FinalModel:
    """The models of the photos, and all that the first of them was made with.

    Attributes:
        result: the models, the one to go on with first.
        photos: with the intrinsics that the mapping started from.
        tracks: whose observations are the first model's keypoints.
        options: of the adjustments.
        guess_stayed: intrinsics were guessed and stayed so, since the photos see the scene under small angles.
        tests: of the cameras, on tracks that were held out.
        still_open: the tests speak for other cameras than the model's.
        notes: what was changed after mapping, in words.
    """

    result: MappingResult
    photos: PhotoSet
    tracks: Tracks
    options: MappingSettings
    guess_stayed: bool = False
    tests: tuple[CameraTest, ...] = ()
    still_open: bool = False
    notes: tuple[str, ...] = ()

    @property
    def model(self) -> pycolmap.Reconstruction:
        """The model to go on with."""
        return self.result.reconstructions[0]

    def _with_model(self, model: pycolmap.Reconstruction) -> MappingResult:
        return replace(self.result, reconstructions=(model, *self.result.reconstructions[1:]))


def checked(
    final: FinalModel,
    graph: ViewGraph,
    *,
    mapper: Mapper,
    write: Callable[[PhotoSet, Tracks], Path],
    test_cameras: bool = True,
) -> FinalModel:
    """Let the tracks decide of cameras that were estimated: map again with others, close loops that stayed open,
    register single photos again.

    Args:
        mapper, write: as ``map_with_tested_cameras`` takes them.
        test_cameras: let tracks that are held out say whether other cameras would be better.
    """
    if test_cameras:
        final = _with_tested_cameras(final, graph, mapper, write)
    return _with_photos_in_place(_with_loops_closed(_with_intrinsics_as_mapped(final), graph))


def polished(
    final: FinalModel,
    images: Mapping[int, Float32[np.ndarray, "h w"]] | Sequence[Float32[np.ndarray, "h w"]],
    *,
    threads: int,
    memory: int | None = None,
) -> FinalModel:
    """Align all observations of the first model once more and adjust it (``polish_model``).

    Args:
        memory: of ``RefinementSettings``.
    """
    how = RefinementSettings(memory=memory)
    better = polish_model(
        final.model, images, final.photos, final.tracks, final.options, how, threads=threads
    )
    return replace(final, result=final._with_model(better.model), tracks=better.tracks)


def verdict_on(final: FinalModel, graph: ViewGraph, tried: Iterable[tuple[int, int]]) -> Trust:
    """Verdict on the first model: sound, doubtful or none.

    Args:
        tried: pairs of photos (ids) that were matched, or found not to match.
    """
    facts = MappingFacts(
        models=tuple(model.num_reg_images() for model in final.result.reconstructions),
        gaps=_gaps(final.result, final.photos, graph),
        intrinsics_fixed=final.guess_stayed,
        free_centre=bool(final.options.free_centres),
        tests=final.tests,
        cameras_open=final.still_open,
    )
    figures = figures_of(
        final.model,
        final.photos,
        graph,
        final.tracks,
        facts=facts,
        tried=tried,
        halves=halves_of(final.model, final.photos, final.options),
        seed=final.options.seed,
    )
    return judge(figures)


def _gaps(result: MappingResult, photos: PhotoSet, graph: ViewGraph) -> tuple[str, ...]:
    """Names of photos of the first model and of another one, between which photos would join them, for each other."""
    groups = [
        sorted(photo_id(number) for number in model.reg_image_ids()) for model in result.reconstructions
    ]
    pairs = [gap_between(groups[0], group, graph) for group in groups[1:]]
    return tuple(" and ".join(photos.photos[i].name for i in pair) for pair in pairs if pair is not None)


def _with_tested_cameras(
    final: FinalModel, graph: ViewGraph, mapper: Mapper, write: Callable[[PhotoSet, Tracks], Path]
) -> FinalModel:
    """Map again with other cameras where tracks that are held out speak for them (``map_with_tested_cameras``).

    Photos that see the scene under small angles tell nothing of their cameras: there, nothing is tested.
    """
    if final.result.small_angles:
        return final
    tested = map_with_tested_cameras(
        final.result, final.photos, graph, final.tracks, final.options, mapper=mapper, write=write
    )
    notes = (f"cameras: points that were held out speak for {tested.in_words}",) if tested.changed else ()
    return replace(
        final,
        result=tested.result,
        photos=tested.photos,
        options=tested.options,
        tests=tested.tests,
        still_open=tested.still_open,
        notes=final.notes + notes,
    )


def _with_loops_closed(final: FinalModel, graph: ViewGraph) -> FinalModel:
    """Join the ends of a large model where a loop stayed open (``close_loops``)."""
    model = close_loops(final.model, final.photos, graph, final.tracks, final.options)
    if model is final.model:
        return final
    note = "a loop had stayed open: its ends were joined, and the error was spread over the way"
    return replace(final, result=final._with_model(model), notes=(*final.notes, note))


def _with_photos_in_place(final: FinalModel) -> FinalModel:
    """Register photos again whose observations are mostly elsewhere (``reregister_photos``)."""
    found = reregister_photos(final.model, final.photos, final.tracks, final.options)
    notes = tuple(
        f"{final.photos.photos[photo].name} was registered again: most of its points were elsewhere"
        for photo in found.moved
    )
    return replace(final, result=final._with_model(found.model), notes=final.notes + notes)


def _with_intrinsics_as_mapped(final: FinalModel) -> FinalModel:
    """Hold intrinsics fixed from here on where the mapping held them fixed for small angles."""
    if not final.result.small_angles:
        return final
    guessed = not all(camera.known for camera in final.photos.cameras)
    return replace(final, photos=with_fixed_intrinsics(final.photos), guess_stayed=guessed)
