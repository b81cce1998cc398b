"""Photo-consistency: high on the surface, low off it, and the correlation itself against NumPy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from recon.core.cameras import PinholeView
from recon.evaluation.consistency import PATCH, PhotoView, patch_correlation, photo_consistency
from tests.support.evaluation_run import Scene, center_of, make_scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"))


def photo_view(photo: np.ndarray, view: PinholeView) -> PhotoView:
    def project(xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        local = xyz @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
        image = local @ view.K.T
        return image[:, :2] / image[:, 2:], local[:, 2]

    return PhotoView(
        view.name, cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), project, center_of(view), view.K[0, 0]
    )


def views_of(scene: Scene) -> list[PhotoView]:
    return [photo_view(photo, view) for photo, view in zip(scene.photos, scene.views, strict=True)]


def test_on_and_off_the_surface(scene: Scene) -> None:
    views = views_of(scene)
    points = scene.mesh.vertices[::3].astype(np.float64)
    normals = np.tile([0.0, -1.0, 0.0], (len(points), 1))
    on = photo_consistency(points, normals, views, occluders=scene.mesh.vertices)
    near = photo_consistency(points - [0, 0.05, 0], normals, views)
    off = photo_consistency(points - [0, 0.3, 0], normals, views)
    assert on.median > 0.97
    assert on.agreeing > 0.95
    assert on.median > near.median > off.median
    assert abs(off.median) < 0.3
    assert on.compared <= on.sampled == len(points)
    assert set(on.by_photo) <= {view.name for view in scene.views}
    # Facing the camera instead of the true normal costs little on a shallow relief.
    assert photo_consistency(points, None, views).median > 0.9


def test_seeded_sample(scene: Scene) -> None:
    views = views_of(scene)
    one = photo_consistency(scene.mesh.vertices, None, views, samples=300, seed=1)
    two = photo_consistency(scene.mesh.vertices, None, views, samples=300, seed=1)
    np.testing.assert_array_equal(one.scores, two.scores)
    assert one.sampled == 300


def test_what_cannot_be_compared(scene: Scene) -> None:
    views = views_of(scene)
    far = np.full((5, 3), 1e3)
    assert photo_consistency(far, None, views).compared == 0
    assert np.isnan(photo_consistency(far, None, views).mean)
    assert photo_consistency(np.zeros((0, 3)), None, views).sampled == 0
    assert photo_consistency(scene.mesh.vertices, None, views[:1]).compared == 0
    flat = [
        photo_view(np.full_like(photo, 99), view)
        for photo, view in zip(scene.photos, scene.views, strict=True)
    ]
    assert photo_consistency(scene.mesh.vertices, None, flat).compared == 0


def test_hidden_points_are_not_compared(scene: Scene) -> None:
    """A wall of points before the relief hides it from every camera."""
    views = views_of(scene)
    x, z = np.meshgrid(np.linspace(-1.2, 1.2, 300), np.linspace(-1.2, 1.2, 300))
    wall = np.stack([x.ravel(), np.full(x.size, -0.6), z.ravel()], axis=1)
    points = scene.mesh.vertices[::5]
    assert photo_consistency(points, None, views, occluders=np.concatenate([points, wall])).compared == 0
    assert photo_consistency(points, None, views).compared > 500


def test_correlation_is_numpys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 255, (2, 6, PATCH * PATCH)).astype(np.float32)
    b[0] = 0.5 * a[0] + 20  # exposure does not matter
    b[1] = 255 - a[1]
    b[2] = 7.0
    found = patch_correlation(a, b)
    assert found[0] == pytest.approx(1.0)
    assert found[1] == pytest.approx(-1.0)
    assert np.isnan(found[2])
    for i in (3, 4, 5):
        assert found[i] == pytest.approx(np.corrcoef(a[i], b[i])[0, 1], abs=1e-6)
