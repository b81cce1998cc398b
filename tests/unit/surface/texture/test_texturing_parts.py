"""The parts of texturing against brute force, exact answers and conservation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay

from recon.core.sampling import sample_image
from recon.surface.texture.bake import paint_faces
from recon.surface.texture.charts import lay_out
from recon.surface.texture.color import blend_weights, diffuse_colors, find_agreement, fit_gains
from recon.surface.texture.simplify import close_holes, clustered, simplify_faces
from recon.surface.texture.topology import face_adjacency, regions
from recon.surface.texture.view_selection import choose_views, drop_small_regions
from recon.surface.texture.visibility import Candidates
from tests.support.texturing_scenes import sheet


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 40))
def test_adjacency_against_a_dictionary(seed, n):
    rng = np.random.default_rng(seed)
    faces = Delaunay(rng.random((n, 2))).simplices.astype(np.int32)
    if rng.random() < 0.5:  # a third face on some edges: those edges join nobody
        faces = np.concatenate([faces, faces[: len(faces) // 3] * [1, 1, 0] + [0, 0, n]]).astype(np.int32)
    edges: dict[tuple[int, int], list[int]] = {}
    for f, face in enumerate(faces.tolist()):
        for j in range(3):
            edges.setdefault(tuple(sorted((face[j], face[(j + 1) % 3]))), []).append(f)
    found = face_adjacency(faces)
    for f, face in enumerate(faces.tolist()):
        for j in range(3):
            others = edges[tuple(sorted((face[j], face[(j + 1) % 3])))]
            want = sum(others) - f if len(others) == 2 else -1
            assert found.face[f, j] == want
            if want >= 0:
                assert found.face[want, found.back[f, j]] == f
    assert len(found.pairs) == sum(len(others) == 2 for others in edges.values())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_chosen_views_are_the_optimum_of_a_small_mesh(seed):
    """A strip of triangles is a chain, where message passing is exact; the truth is by trying everything."""
    rng = np.random.default_rng(seed)
    faces = np.array([[i, i + 1, i + 2] if i % 2 == 0 else [i + 1, i, i + 2] for i in range(7)], np.int32)
    adjacency = face_adjacency(faces)
    cost = rng.random((7, 3)).astype(np.float32) * 4
    views = np.array([rng.permutation(4)[:3] for _ in range(7)], np.int16)
    cost[rng.random((7, 3)) < 0.2] = 1e9
    cost[:, 0] = np.minimum(cost[:, 0], 5)
    seam = rng.random((7, 3)).astype(np.float32) * 3
    got = choose_views(cost, views, adjacency, seam)

    def energy(slots):
        total = sum(float(cost[f, k]) for f, k in enumerate(slots))
        for f in range(7):
            for j in range(3):
                g = adjacency.face[f, j]
                if g > f and views[f, slots[f]] != views[g, slots[g]]:
                    total += 0.5 * float(seam[f, j] + seam[g, adjacency.back[f, j]])
        return total

    best = min(energy(slots) for slots in itertools.product(range(3), repeat=7))
    slots = [int(np.flatnonzero(views[f] == got[f])[0]) for f in range(7)]
    assert energy(slots) == pytest.approx(best, rel=1e-4)


def test_small_regions_go_to_what_surrounds_them():
    _, faces = sheet(12)
    adjacency = face_adjacency(faces)
    m = len(faces)
    labels = np.zeros(m, np.int32)
    island = adjacency.pairs[200]
    labels[island] = 1
    candidates = Candidates(
        np.tile(np.array([[0, 1]], np.int16), (m, 1)),
        np.full((m, 2), 5.0, np.float32),
        np.zeros((m, 2, 3), np.float32),
    )
    cost, seam = np.zeros((m, 2), np.float32), np.ones((m, 3), np.float32)
    assert (drop_small_regions(labels, cost, candidates, adjacency, seam, min_area=20) == 0).all()
    # Not if the view round it does not see it, and not if it is large enough.
    cost[island, 0] = 1e9
    assert (drop_small_regions(labels, cost, candidates, adjacency, seam, min_area=20) == labels).all()
    cost[:] = 0
    assert (drop_small_regions(labels, cost, candidates, adjacency, seam, min_area=5) == labels).all()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_charts_keep_their_shape_and_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    vertices, faces = sheet(16)
    adjacency = face_adjacency(faces)
    seeds = rng.integers(0, len(faces), 12)
    centre = vertices[faces].mean(axis=1)
    nearest = ((centre[:, None, :2] - centre[None, seeds, :2]) ** 2).sum(-1).argmin(axis=1)
    labels = (nearest - 1).astype(np.int32)  # one region that no photo sees
    pixels = (vertices[:, :2] * 60 + rng.uniform(0, 500, 2))[faces]
    layout = lay_out(pixels, labels, adjacency, max_texture=2048, padding=4)
    seen = labels >= 0
    assert layout.scale == 1.0
    assert layout.charts == len(np.unique(regions(adjacency, labels)[seen]))
    # Whole texels only: a texel of a chart is a pixel of the photo.
    move = layout.corners[seen] - pixels[seen]
    assert np.abs(move - np.rint(move)).max() < 1e-9
    assert layout.corners.min() >= 0
    assert (layout.corners.max(axis=(0, 1)) <= [layout.width - 1, layout.height - 1]).all()
    for chart in range(layout.charts):
        assert np.ptp(move[layout.chart[seen] == chart], axis=0).max() < 1e-9
    # Each chart painted alone: no texel twice, the margin for bilinear look-ups included.
    taken = np.zeros((layout.height, layout.width), int)
    for chart in range(layout.charts + 1):
        texture = np.zeros((layout.height, layout.width, 3), np.uint8)
        owner = np.full((layout.height, layout.width), -1, np.int32)
        mine = np.flatnonzero(layout.chart == chart).astype(np.int32)
        paint_faces(texture, owner, layout, mine, np.full((len(mine), 3, 3), 9, np.float32))
        inside = owner >= 0
        taken += inside
        one, two = pixels[mine, 1] - pixels[mine, 0], pixels[mine, 2] - pixels[mine, 0]
        if chart < layout.charts:
            area = 0.5 * np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]).sum()
            assert inside.sum() >= area
    assert taken.max() == 1


def test_a_chart_without_area_lies_in_one_of_several_textures():
    vertices, faces = sheet(16)
    adjacency = face_adjacency(faces)
    labels = (vertices[faces].mean(axis=1)[:, :2] * 2).astype(np.int32) @ np.array([1, 8], np.int32)
    labels = (labels - labels.min()).astype(np.int32)
    pixels = (vertices[:, :2] * 200)[faces]
    pixels[0] = pixels[0, :1] + np.array([[0.0, 0.0], [3e-3, 3e-3], [-1e-3, -1e-3]])
    labels[0] = 99
    layout = lay_out(pixels, labels, adjacency, max_texture=256, max_textures=16)
    assert layout.tiles != (1, 1)
    assert layout.corners.min() >= 0
    assert (layout.corners.max(axis=(0, 1)) < [layout.width, layout.height]).all()
    assert layout.tile_of_faces.max() < 16


def test_gains_of_exact_ratios():
    rng = np.random.default_rng(3)
    truth = np.array([[1.3, 1.2, 1.0], [0.8, 0.9, 1.1], [1.0, 1.0, 1.0], [0.9, 1.1, 0.95]])
    truth /= np.exp(np.log(truth).mean(axis=0))
    base = rng.uniform(60, 140, (3000, 1, 3))
    view = np.array([rng.permutation(4)[:3] for _ in range(3000)], np.int16)
    seen = (base / truth[view]).astype(np.float32)
    seen[rng.random((3000, 3)) < 0.15] = 200.0  # what moved
    gains = fit_gains(Candidates(view, np.ones((3000, 3), np.float32), seen), 4, prior=1e-6)
    assert gains == pytest.approx(truth, rel=0.01)
    alone = Candidates(view[:, :1], np.ones((3000, 1), np.float32), seen[:, :1])
    assert (fit_gains(alone, 4) == 1).all()


def test_agreement_rejects_a_coherent_stranger_but_not_noise():
    vertices, faces = sheet(20)
    m = len(faces)
    rng = np.random.default_rng(0)
    view = np.tile(np.arange(5, dtype=np.int16), (m, 1))
    colors = np.full((m, 5, 3), 100, np.float32)
    colors[:, 1] += rng.choice([-50, 50], (m, 1))  # the error of a strong texture: changes from face to face
    stranger = np.linalg.norm(vertices[faces].mean(axis=1)[:, :2], axis=1) < 0.5
    colors[stranger, 3] = 180
    candidates = Candidates(view, np.ones((m, 5), np.float32), colors)
    found = find_agreement(candidates, np.ones((5, 3)), face_adjacency(faces), reject_levels=40, rings=4)
    assert np.abs(found.color - 100).max() < 1e-3
    assert found.accepted[stranger, 3].mean() < 0.2
    assert found.accepted[~stranger, 3].mean() > 0.9
    assert found.accepted[:, 1].mean() > 0.95
    assert found.accepted[:, [0, 2, 4]].all()


def test_blend_weights_sum_to_one_and_stay_near_seams():
    vertices, faces = sheet(20)
    centre = vertices[faces].mean(axis=1)
    labels = (centre[:, 0] > 0).astype(np.int32)
    share = blend_weights(faces, labels, len(vertices), 2, 2)
    dense = np.asarray(share.todense())
    assert dense.sum(axis=1) == pytest.approx(1)
    step = 2 / 19
    far = np.abs(vertices[:, 0]) > 3.5 * step
    assert (dense[far].max(axis=1) == 1).all()
    assert (dense[np.abs(vertices[:, 0]) < step].max(axis=1) < 1).all()


def test_diffusion_solves_laplace():
    """On a regular triangulation a linear function is harmonic; the border gives it."""
    vertices, faces = sheet(15)
    linear = np.stack([vertices[:, 0] * 40 + 100, vertices[:, 1] * 30 + 90, np.full(len(vertices), 77.0)], -1)
    known = np.abs(vertices[:, :2]).max(axis=1) > 0.999
    found = diffuse_colors(faces, np.where(known[:, None], linear, 0), known)
    assert found == pytest.approx(linear, abs=0.1)
    assert (diffuse_colors(faces, linear, np.zeros(len(vertices), bool)) == 128).all()
    # A part that nothing known touches takes the mean.
    two = np.concatenate([faces, faces + len(vertices)])
    both = np.concatenate([linear, linear * 0])
    found = diffuse_colors(two, both, np.concatenate([known, np.zeros(len(vertices), bool)]))
    assert found[len(vertices) :] == pytest.approx(
        np.tile(linear[known].mean(axis=0), (len(vertices), 1)), abs=0.1
    )


def sphere(n=24, m=48, cap=0):
    """A sphere of unit radius, without ``cap`` rings at one pole."""
    t, p = np.linspace(0, np.pi, n + 1)[1:-1], np.arange(m) * 2 * np.pi / m
    grid = np.stack(
        [np.outer(np.sin(t), np.cos(p)), np.outer(np.sin(t), np.sin(p)), np.outer(np.cos(t), np.ones(m))], -1
    ).reshape(-1, 3)
    vertices = np.concatenate([grid, [[0, 0, 1], [0, 0, -1]]])
    faces = []
    for r in range(n - 2):
        for c in range(m):
            a, b = r * m + c, r * m + (c + 1) % m
            faces += [[a, a + m, b], [b, a + m, b + m]]
    last = (n - 2) * m
    for c in range(m):
        faces += [[len(grid), c, (c + 1) % m], [len(grid) + 1, last + (c + 1) % m, last + c]]
    faces = np.array(faces, np.int32)
    if cap:
        faces = faces[vertices[faces][:, :, 2].max(axis=1) < np.cos(np.pi * cap / n) + 1e-9]
    return vertices, faces


def test_simplification_keeps_a_sphere_a_sphere():
    vertices, faces = sphere(48, 96)
    offset = np.array([5e5, 5e6, 0])
    small, few = simplify_faces(vertices + offset, faces, 1200)
    assert len(few) <= 1210
    assert np.abs(np.linalg.norm(small - offset, axis=1) - 1).max() < 0.02
    assert (face_adjacency(few).face >= 0).all()  # still closed
    same, all_faces = simplify_faces(vertices, faces, 0)
    assert len(all_faces) == len(faces)
    assert len(same) == len(vertices)


def test_large_meshes_are_clustered_before_they_are_simplified():
    vertices, faces = sphere(96, 192)
    offset = np.array([5e5, 5e6, 0])
    points, few = clustered(vertices.astype(np.float32), faces, 8000)
    assert 4000 < len(few) <= 8000
    assert (face_adjacency(few).face >= 0).all()  # still closed
    assert np.abs(np.linalg.norm(points, axis=1) - 1).max() < 0.01
    small, fewer = simplify_faces(vertices + offset, faces, 1200, 8000)
    assert len(fewer) <= 1210
    assert np.abs(np.linalg.norm(small - offset, axis=1) - 1).max() < 0.02
    whole, same = (simplify_faces(vertices, faces, 1200, most) for most in (None, len(faces)))
    assert (whole[0] == same[0]).all()
    assert (whole[1] == same[1]).all()


def test_simplification_apart_is_the_same(monkeypatch):
    vertices, faces = sphere(24, 48)
    here = simplify_faces(vertices, faces, 300)
    monkeypatch.setattr("recon.surface.texture.simplify._APART_FACES", 0)
    apart = simplify_faces(vertices, faces, 300)
    assert (here[0] == apart[0]).all()
    assert (here[1] == apart[1]).all()


def test_holes_are_closed_up_to_a_size():
    vertices, faces = sphere(cap=3)
    rim = np.sin(np.pi * 3 / 24)
    open_before = (face_adjacency(faces).face < 0).sum()
    assert open_before == 48
    _, closed = close_holes(vertices, faces, 1.6 * rim)
    assert (face_adjacency(closed).face >= 0).all()
    _, still = close_holes(vertices, faces, 0.5 * rim)
    assert (face_adjacency(still).face < 0).sum() == open_before
    assert close_holes(vertices, faces, 0.0)[1] is faces


def test_sampling_against_the_formula():
    rng = np.random.default_rng(1)
    image = rng.random((20, 30, 3)).astype(np.float32)
    xy = rng.uniform(0, [28.9, 18.9], (5000, 2))
    x, y = np.floor(xy).astype(int).T
    fx, fy = (xy - np.floor(xy)).T[..., None]
    want = (image[y, x] * (1 - fx) + image[y, x + 1] * fx) * (1 - fy)
    want += (image[y + 1, x] * (1 - fx) + image[y + 1, x + 1] * fx) * fy
    assert np.abs(sample_image(image, xy) - want).max() < 0.05  # OpenCV interpolates in steps of 1/32 pixel
