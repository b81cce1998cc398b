"""Mapping again with the cameras that held-out tracks speak for, where a model fits them better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from recon.graph.types import Tracks, ViewGraph
from recon.photos.types import PhotoSet
from recon.sfm.camera_tests import CameraTest, CameraTester, decide_cameras
from recon.sfm.mapping import Mapper, MappingResult, MappingSettings, map_from


@dataclass(frozen=True)
class TestedMapping:
    """Result of tests of the cameras.

    Attributes:
        result, photos, options: the models, and the cameras and settings that they were made with.
        tests: what was asked of the cameras.
        changed: the models were made anew, with other cameras.
        still_open: the tests speak for others than the model's.
    """

    __test__ = False  # its name is not meant for pytest

    result: MappingResult
    photos: PhotoSet
    options: MappingSettings
    tests: tuple[CameraTest, ...] = ()
    changed: bool = False
    still_open: bool = False

    @property
    def in_words(self) -> str:
        """The changes that were taken."""
        return ", ".join(test.what for test in self.tests if test.taken)


def map_with_tested_cameras(
    result: MappingResult,
    photo_set: PhotoSet,
    graph: ViewGraph,
    tracks: Tracks,
    options: MappingSettings,
    *,
    mapper: Mapper,
    write: Callable[[PhotoSet, Tracks], Path],
) -> TestedMapping:
    """Test the cameras of a model; where tracks held out speak for others, map with these and keep what is better.

    Args:
        mapper: finds cameras anew where those of the model cannot be adjusted.
        write: writes COLMAP's database of the tracks for these cameras and returns its path. In the end the database
            holds those of the result.
    """
    as_it_is = TestedMapping(result, photo_set, options)
    if result.best is None:
        return as_it_is
    tester = CameraTester(result.best, photo_set, tracks, options, options.seed)
    decision = decide_cameras(tester)
    if decision is None:
        return as_it_is
    tested = replace(as_it_is, tests=decision.tests, still_open=any(test.taken for test in decision.tests))
    if not decision.changed:
        return tested
    how = replace(options, free_centres=decision.free_centres)
    before = result.best.num_reg_images()

    def better(found: MappingResult) -> bool:
        model = found.best
        return model is not None and model.num_reg_images() >= before and tester.fits(model, decision.photos)

    database = write(decision.photos, tracks)
    again = None
    if len(decision.poses) == len(photo_set.photos):
        again = map_from(decision.photos, tracks, decision.poses, how)
    if again is None or not better(again):
        again = mapper(database, decision.photos, graph, how)
    if not better(again):
        write(photo_set, tracks)
        return tested
    return TestedMapping(again, decision.photos, how, decision.tests, changed=True)
