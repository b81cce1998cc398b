"""The model of an earlier run, and what it was made from: new photos are registered into it where few came or went."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from recon.core.colmap import pycolmap
from recon.engine.stage import StageContext
from recon.engine.workspace import PREVIOUS
from recon.graph.types import Tracks
from recon.photos.types import PhotoSet
from recon.run.folder import MODELS, RunFolder, read_model_sources
from recon.run.photo_changes import PhotoChanges, photo_changes
from recon.run.photos import photo_set_from_json, photo_set_to_json
from recon.sfm.camera_tests import CameraTest
from recon.sfm.final_model import FinalModel, verdict_on
from recon.sfm.mapping import MappingResult, MappingSettings
from recon.sfm.model_extension import NotPlacedError, posed_tracks, register_photos
from recon.sfm.track_refinement import RefinementSettings
from recon.sfm.trust import Trust
from recon.tasks.mapping import TrackDatabase
from recon.tasks.track_sources import read_track_sources
from recon.tasks.tracks import greys_of_surfaces


@dataclass(frozen=True)
class EarlierModel:
    """The model of an earlier run.

    Attributes:
        photos: that it was made of, with the intrinsics that mapping started from.
        now: today's photos, with these intrinsics.
        changes: from those to these.
        noted: what ``model_sources`` says of it.
    """

    model: pycolmap.Reconstruction
    photos: PhotoSet
    tracks: Tracks
    now: PhotoSet
    changes: PhotoChanges
    noted: dict[str, Any]


def model_sources(run: RunFolder, final: FinalModel, trust: Trust, identity: str) -> dict[str, Any] | None:
    """What a model was made from, as JSON values; None where its tracks cannot be carried on.

    Args:
        identity: of the settings and the version of the stage.
    """
    tracks = read_track_sources(run)
    if tracks is None or final.tracks.affinity is None:
        return None
    return {
        "settings": identity,
        "keys": list(tracks.photos),
        "tracks": tracks.tracks,
        "given": photo_set_to_json(run.photo_set),
        "photos": photo_set_to_json(final.photos),
        "verdict": trust.verdict,
        "models": len(final.result.reconstructions),
        "guess_stayed": final.guess_stayed,
        "still_open": final.still_open,
        "tests": [asdict(test) for test in final.tests],
        "free_centres": sorted(final.options.free_centres),
    }


def model_extended(
    run: RunFolder, options: MappingSettings, identity: str, work: StageContext, *, polish: bool
) -> tuple[FinalModel, Trust, int] | None:
    """The model of an earlier run with the photos that came, and without those that went; the verdict on it, which is
    made anew; and the number of cameras that are as they were.

    None where all has to be mapped from nothing; the log says why.

    Args:
        identity: of the settings and the version of the stage.
    """
    folder = work.path(PREVIOUS, MODELS)
    tracks = read_track_sources(run)
    if not work.reuse or tracks is None or not tracks.extends or not folder.is_dir():
        return None
    try:
        before = _earlier_model(run, identity, work)
        final = _registered(run, before, options, work, polish=polish)
        trust = verdict_on(final, run.view_graph(), run.pairs)
        if trust.verdict != "sound":
            raise NotPlacedError(f"with the new photos it would be {trust.verdict}: {trust.reasons[0].what}")
    except NotPlacedError as error:
        work.log.info("the earlier model is not carried on, all photos are mapped again: %s", error)
        return None
    TrackDatabase(work, run.view_graph().edges, options.max_error).write(
        final.photos, final.tracks, final.model
    )
    return final, trust, len(before.changes.now)


def _earlier_model(run: RunFolder, identity: str, work: StageContext) -> EarlierModel:
    """The model of an earlier run, where it can be carried on.

    Raises:
        NotPlacedError: it cannot.
    """
    found, tracks = read_model_sources(work.path(PREVIOUS, MODELS)), read_track_sources(run)
    if found is None or tracks is None:
        raise NotPlacedError("it is not whole, or of another version")
    noted, model, of_model = found
    try:
        given, photos = photo_set_from_json(noted["given"]), photo_set_from_json(noted["photos"])
        changes = photo_changes(noted["keys"], tracks.photos)
        if noted["settings"] != identity:
            raise NotPlacedError("the settings are others")
        if noted["tracks"] not in tracks.extends or changes is None or not changes.few():
            raise NotPlacedError("its tracks are not those that were carried on")
        if noted["verdict"] != "sound" or noted["models"] != 1:
            raise NotPlacedError(f"it was {noted['verdict']}, one of {noted['models']}")
    except (ValueError, KeyError, TypeError, IndexError):
        raise NotPlacedError("it is not whole, or of another version") from None
    if model.num_reg_images() != len(photos.photos):
        raise NotPlacedError("photos were left out of it")
    now = _with_cameras_of(run.photo_set, given, photos, changes)
    return EarlierModel(model, photos, of_model, now, changes, noted)


def _with_cameras_of(today: PhotoSet, given: PhotoSet, photos: PhotoSet, changes: PhotoChanges) -> PhotoSet:
    """Today's photos with the cameras of the earlier ones.

    Args:
        given: the earlier photos with the cameras that they were given. photos: with those of their model.

    Raises:
        NotPlacedError: a new photo has a camera of its own, or cameras were given otherwise.
    """
    group: dict[int, set[int]] = {}
    camera: dict[int, int] = {}
    for before, after in changes.now.items():
        mine = today.photos[after].camera
        if given.cameras[given.photos[before].camera] != today.cameras[mine]:
            raise NotPlacedError("the intrinsics that are known of its photos are others")
        camera[after] = photos.photos[before].camera
        group.setdefault(mine, set()).add(camera[after])
    for number in changes.new:
        photo = today.photos[number]
        shared = group.get(photo.camera, set())
        if len(shared) != 1:
            raise NotPlacedError(f"{photo.name} has a camera that no earlier photo has")
        (camera[number],) = shared
    return replace(
        today,
        photos=tuple(replace(photo, camera=camera[photo.id]) for photo in today.photos),
        cameras=photos.cameras,
    )


def _registered(
    run: RunFolder, before: EarlierModel, options: MappingSettings, work: StageContext, *, polish: bool
) -> FinalModel:
    """The earlier model with the new photos."""
    noted = before.noted
    options = replace(options, free_centres=frozenset(noted["free_centres"]))
    extended = register_photos(
        posed_tracks(before.model, before.photos, before.tracks, before.changes.now),
        before.now,
        before.changes.new,
        run.tracks(),
        greys_of_surfaces(run),
        options,
        RefinementSettings(memory=work.memory),
        polish=polish,
        threads=work.threads,
    )
    return FinalModel(
        MappingResult((extended.model,), 0, ()),
        before.now,
        extended.tracks,
        options,
        guess_stayed=noted["guess_stayed"],
        tests=tuple(CameraTest(**one) for one in noted["tests"]),
        still_open=noted["still_open"],
    )
