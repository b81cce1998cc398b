"""Content of a report, before it becomes a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from recon.core.cameras import PinholeView


@dataclass(frozen=True)
class Picture:
    """An encoded picture.

    Attributes:
        data: a JPEG file.
        width, height: pixels.
    """

    data: bytes
    width: int
    height: int
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class PhotoEntry:
    """One photo that was given.

    Attributes:
        name: as in the photo folder.
        view: its camera at working size; None if it has none.
        reason: why it is not in the model; empty for one that is.
        picture: the photo, without lens distortion where it has a camera.
        size: (width, height) of the file's image; None where it could not be read.
        camera: its camera in words.
        points: sparse points that it sees.
        error_px: mean reprojection error of its observations, pixels at working size; None without any.
        pairs: how many photos it is joined with in the view graph.
    """

    name: str
    view: PinholeView | None = None
    reason: str = ""
    picture: Picture | None = None
    size: tuple[int, int] | None = None
    camera: str = ""
    points: int = 0
    error_px: float | None = None
    pairs: int = 0


@dataclass(frozen=True)
class Points:
    """A coloured cloud in the world; anything not finite is not shown.

    Attributes:
        of: points of the whole cloud where these are some of it, evenly taken; 0 where they are all.
    """

    xyz: Float[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]
    of: int = 0


@dataclass(frozen=True)
class Surface:
    """A mesh in the world with colours at its vertices, or with a texture.

    Attributes:
        xyz, faces: vertices and triangles.
        rgb: colours of the vertices; None with a texture.
        uv: texture coordinates of the vertices, v down as in glTF.
        texture: a JPEG file.
        note: what was done to it, for a person.
    """

    xyz: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    rgb: UInt8[np.ndarray, "n 3"] | None = None
    uv: Float[np.ndarray, "n 2"] | None = None
    texture: bytes | None = None
    note: str = ""


@dataclass(frozen=True)
class PairEntry:
    """Two photos that were matched, by their positions among the photos of the run.

    Attributes:
        inliers: matches that agree with the pair's geometry; 0 for a pair that was dropped.
        share: of the matches that are inliers.
        model: E, F or H.
        angle: triangulation angle in degrees, None where it is not known.
        kept: whether it is an edge of the view graph.
        sparse: matches of the first sparse look.
    """

    a: int
    b: int
    inliers: int = 0
    share: float = 0.0
    model: str = ""
    angle: float | None = None
    kept: bool = True
    sparse: int = 0


@dataclass(frozen=True)
class Histogram:
    """Values to be counted; ``whole`` for whole numbers, of which each has its bar while they are few."""

    key: str
    title: str
    unit: str
    values: Float[np.ndarray, " n"]
    whole: bool = False


@dataclass(frozen=True)
class StageRow:
    """Cost and counts of a stage."""

    name: str
    state: str
    seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    counts: str = ""


@dataclass(frozen=True)
class ModelRow:
    """One model of the cameras."""

    folder: str
    photos: tuple[str, ...]
    points: int


@dataclass
class ReportContent:
    """All of a report. What a run did not make stays empty; ``missing`` says what could not be shown and why.

    Attributes:
        photo_names: of the photos that were used, in the order that pairs and cameras count in.
        failure: why the run ended before its end; empty if it did not.
        facts: label and value, the run in short.
        matches_note: how the match pictures are to be read.
        doubt: verdict on a model that is not sound, and what that means. reasons: what was seen, and what to do.
        survey: the part on the georeference, as HTML (``recon.report.survey``).
        dropped: how verification and the sparse model narrowed things down, in sentences.
        command: how to make the same again. recipe: the whole text of the resolved recipe.
    """

    title: str
    lead: str = ""
    failure: str = ""
    doubt: tuple[str, str] | None = None
    reasons: tuple[tuple[str, str], ...] = ()
    facts: list[tuple[str, str]] = field(default_factory=list)
    photos: list[PhotoEntry] = field(default_factory=list)
    photo_names: tuple[str, ...] = ()
    sparse: Points | None = None
    dense: Points | None = None
    surface: Surface | None = None
    still: Picture | None = None
    pairs: list[PairEntry] = field(default_factory=list)
    strongest: list[Picture] = field(default_factory=list)
    weakest: list[Picture] = field(default_factory=list)
    matches_note: str = ""
    depth: list[Picture] = field(default_factory=list)
    histograms: list[Histogram] = field(default_factory=list)
    stages: list[StageRow] = field(default_factory=list)
    models: list[ModelRow] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    survey: str = ""
    command: str = ""
    recipe: str = ""
    machine: str = ""
    versions: Mapping[str, Any] = field(default_factory=dict)
    files: list[tuple[str, str]] = field(default_factory=list)
