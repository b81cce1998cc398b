"""Options, result and figures of texturing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int32, UInt8


@dataclass(frozen=True)
class TextureOptions:
    """Settings of texturing.

    Attributes:
        max_texture: longest side of a texture, texels.
        max_textures: charts that do not fit into one texture go into up to so many of that size; where these do not
            hold them either, charts shrink together.
        candidates: views that are kept for each face, the best ones.
        max_angle: degrees between a face's normal and the direction to a view that may texture it.
        seam_cost: what a pixel's length of seam costs, in pixels of lost resolution.
        reject_levels: a view whose colour differs by more from what the other views agree on (after exposure, over
            some neighbourhood) does not show the surface there; grey levels of 255. 0 trusts all.
        blend_rings: faces on each side of a seam over which two photos blend into each other.
        consensus: pull of the colours towards what all views agree on, against their smoothness (0 levels only
            the seams).
        balance: whether exposure and colour differences between photos are fitted and taken out.
        padding: texels between charts.
    """

    max_texture: int = 4096
    max_textures: int = 8
    candidates: int = 8
    max_angle: float = 82.0
    seam_cost: float = 6.0
    reject_levels: float = 30.0
    blend_rings: int = 2
    consensus: float = 0.02
    balance: bool = True
    padding: int = 4


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh with its texture.

    Attributes:
        vertices: (n, 3) positions in the world; each is there once, whatever the charts.
        faces: (m, 3) vertex indices, counter-clockwise seen from outside.
        uvs: (m, 3, 2) texture coordinates of each face's corners in 0…1, v up (OBJ; glTF's v is 1 - v).
        texture: (th, tw, 3) RGB, first row at v = 1. Several textures lie in it as tiles of one size.
        face_view: (m,) index of the view that textures a face; -1 where no photo sees it.
        face_chart: (m,) chart of each face.
        tiles: columns and rows of the texture's tiles; no face lies in two.
    """

    vertices: Float64[np.ndarray, "n 3"]
    faces: Int32[np.ndarray, "m 3"]
    uvs: Float64[np.ndarray, "m 3 2"]
    texture: UInt8[np.ndarray, "th tw 3"]
    face_view: Int32[np.ndarray, " m"]
    face_chart: Int32[np.ndarray, " m"]
    tiles: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class TextureReport:
    """Figures of a texturing.

    Attributes:
        charts: number of charts that a photo textures.
        seen_share: share of the faces that some photo textures.
        rejected_share: share of the visible (face, view) pairs that were found inconsistent.
        fill: share of the texture's texels that belong to a face.
        scale: texels per photo pixel.
        gains: exposure factor applied to each view and channel.
        seam_before, seam_after: median colour step over the seams, grey levels: between the photos as they are, and
            in the texture.
        seconds: wall time by part.
    """

    charts: int
    seen_share: float
    rejected_share: float
    fill: float
    scale: float
    gains: tuple[tuple[float, float, float], ...]
    seam_before: float
    seam_after: float
    seconds: dict[str, float] = field(default_factory=dict)
