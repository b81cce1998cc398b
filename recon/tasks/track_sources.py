"""What the tracks of a run were made from: tells whether those of an earlier run can be carried on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.graph.track_extension import renumbered_photos
from recon.graph.types import Tracks
from recon.io.files import file_sha256, parse_json
from recon.run.folder import TRACK_SOURCES, TRACKS, RunFolder
from recon.run.kept import read_keys
from recon.run.matches import FLOWS, Pair
from recon.run.photo_changes import PhotoChanges, photo_changes
from recon.run.shared_fields import content_key
from recon.sfm.track_refinement import with_references

_CHANGED_EDGES = 0.1
"""So large a share of the edges between photos that stayed may be otherwise."""


@dataclass(frozen=True)
class TrackSources:
    """What dense tracks were made from.

    Attributes:
        settings: hash of the options and of the stage's version.
        photos: key of each photo and its interest points, in the order of ids.
        edges: key of the match and the geometry of each edge, by the sorted keys of its photos with a bar between them.
        tracks: hash of the file of the tracks.
        extends: hashes of the files that they were carried on from, the latest last.
        changed: photos that came or went since tracks were made from nothing.
    """

    settings: str
    photos: tuple[str, ...]
    edges: dict[str, str]
    tracks: str = ""
    extends: tuple[str, ...] = ()
    changed: int = 0


@dataclass(frozen=True)
class EarlierTracks:
    """Tracks of an earlier run with today's photo ids, and what changed since.

    Attributes:
        tracks: without the photos that are gone.
    """

    tracks: Tracks
    changes: PhotoChanges
    sources: TrackSources

    def carried_on(self, today: TrackSources | None) -> TrackSources | None:
        """What tracks that go on from these are made from."""
        if today is None:
            return None
        before = self.sources
        extends = (*before.extends, before.tracks)
        return replace(today, extends=extends, changed=before.changed + self.changes.count)


def track_sources(run: RunFolder, edges: Sequence[Pair], settings: str) -> TrackSources | None:
    """What dense tracks would be made from today; None where a match has no key."""
    made = read_keys(run.path(FLOWS))
    keys = tuple(
        content_key({"photo": run.photo_key(photo), "points": run.points_key(photo.id)})
        for photo in run.photo_set.photos
    )
    by_points = run.edges_by_points()
    found = {}
    for pair in edges:
        match = made.get(run.match_path(pair, dense=True).name)
        if match is None:
            return None
        model, matrix = run.two_view_matrix(pair)
        identity: dict[str, Any] = {"match": match, "model": model, "by_points": pair in by_points}
        inliers = run.inliers(pair) if pair in by_points else None
        ends = "|".join(sorted(keys[number] for number in pair))
        found[ends] = content_key(identity, [matrix, inliers])
    return TrackSources(settings, keys, found)


def earlier_tracks(run: RunFolder, today: TrackSources | None) -> EarlierTracks | None:
    """The tracks of an earlier run where few photos came or went since and all else is as it was; None elsewhere."""
    before = read_track_sources(run)
    if today is None or before is None or before.settings != today.settings:
        return None
    changes = photo_changes(before.photos, today.photos)
    if changes is None or not changes.few(before.changed):
        return None
    stayed = [today.photos[number] for number in changes.now.values()]
    if not _edges_stayed(before, today, stayed):
        return None
    try:
        tracks = run.tracks(len(before.photos))
    except ReconError:
        return None
    if tracks.is_reference is None or tracks.affinity is None:
        return None
    return EarlierTracks(with_references(renumbered_photos(tracks, changes.now)), changes, before)


def _edges_stayed(before: TrackSources, today: TrackSources, stayed: Sequence[str]) -> bool:
    """Whether the edges between the photos that stayed are nearly all as they were.

    A photo that came takes the place of others among the best neighbours of its own ones: of so many edges as it has
    it does not matter if they are gone, or, for one that went, if they are new.
    """
    kept = set(stayed)
    then, now = (
        {ends: key for ends, key in one.edges.items() if kept.issuperset(ends.split("|"))}
        for one in (before, today)
    )
    displaced = len(before.edges) - len(then) + len(today.edges) - len(now)
    same = len(then.items() & now.items())
    few = _CHANGED_EDGES * max(len(then), len(now))
    return len(then.keys() & now.keys()) - same <= few and max(len(then), len(now)) - same <= few + displaced


def read_track_sources(run: RunFolder) -> TrackSources | None:
    """Read what the tracks on disk were made from; None where that is not known."""
    try:
        stored = parse_json(run.path(TRACK_SOURCES).read_text(encoding="utf-8"))
        found = TrackSources(
            stored["settings"],
            tuple(stored["photos"]),
            dict(stored["edges"]),
            stored["tracks"],
            tuple(stored["extends"]),
            int(stored["changed"]),
        )
        return found if file_sha256(run.path(TRACKS)) == found.tracks else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_track_sources(work: StageContext, sources: TrackSources) -> None:
    """Note what the tracks that were just written were made from."""
    stored = asdict(sources) | {"tracks": file_sha256(work.path(TRACKS))}
    work.write_text(TRACK_SOURCES, json.dumps(stored, indent=0) + "\n")
