"""Two viewers whose cameras go together."""

from __future__ import annotations

import numpy as np

from recon.core.similarity import Similarity3
from recon.evaluation.poses import align_cameras, matched_names
from recon.live.camera import Viewpoint, moved
from recon.live.viewer import LiveViewer
from recon.render.scene import ViewScene


def link(a: LiveViewer, b: LiveViewer) -> bool:
    """Let each viewer's camera, and the photo that is looked through, follow the other's.

    Returns:
        Whether cameras of both scenes brought their worlds together; else coordinates are taken to be the same.
    """
    b_from_a = similarity_between(a.scene, b.scene)
    known = b_from_a is not None
    forth = b_from_a or Similarity3(1.0, np.eye(3), a.scene.offset - b.scene.offset)
    back = forth.inverse()
    a.follow(lambda view: b.place(_through(forth, view)), b.look_through_named)
    b.follow(lambda view: a.place(_through(back, view)), a.look_through_named)
    b.start_at(_through(forth, a.start))
    return known


def similarity_between(a: ViewScene, b: ViewScene) -> Similarity3 | None:
    """From the first scene's world to the second's, by the photos that both have; None with fewer than two."""
    first = {photo.name: photo.view.cam_from_world for photo in a.photos}
    second = {photo.name: photo.view.cam_from_world for photo in b.photos}
    names = matched_names(first, second)
    try:
        return align_cameras(
            {name: first[name] for name in names},
            {name: second[other] for name, other in names.items()},
            robust=len(names) > 4,
        )
    except ValueError:
        return None


def _through(similarity: Similarity3, view: Viewpoint) -> Viewpoint:
    return moved(view, similarity.scale, similarity.rotation, similarity.translation)
