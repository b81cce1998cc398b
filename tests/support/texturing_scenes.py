"""Small surfaces of known colour, photographed exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.core.raycasting import render_vertex_colors
from recon.render.canvas import Canvas, Surface
from recon.surface.texture.files import split_vertices
from recon.synthetic.paths import look_at


def height(x, y):
    return 0.15 * np.sin(2.1 * x) * np.cos(1.7 * y)


def color(x, y):
    """A smooth pattern with no two places alike, 0…255."""
    r = 128 + 60 * np.sin(5 * x + 1.3 * y) + 20 * np.sin(17 * x)
    g = 120 + 50 * np.cos(4 * y - x) + 20 * np.sin(15 * y)
    b = 110 + 40 * np.sin(3 * (x + y)) + 20 * np.cos(13 * (x - y))
    return np.stack([r, g, b], -1)


def sheet(n, half=1.0):
    """A height field over [-half, half]² as n x n vertices, seen from +z counter-clockwise."""
    line = np.linspace(-half, half, n)
    x, y = np.meshgrid(line, line)
    vertices = np.stack([x.ravel(), y.ravel(), height(x, y).ravel()], -1)
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1].ravel(), i[:-1, 1:].ravel(), i[1:, 1:].ravel(), i[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).astype(np.int32)
    return vertices, faces


def camera(number, center, target=(0.0, 0.0, 0.0), size=(160, 120), focal=150.0):
    """A view that looks from ``center`` at ``target``."""
    K = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1.0]])
    pose = look_at(np.array(center, float), np.array(target, float), up=(0.0, 1.0, 0.0))
    return PinholeView(number, f"{number}.jpg", K, pose, *size)


def photos(views):
    """Photos of the sheet, from a mesh much finer than the one that is textured."""
    vertices, faces = sheet(220)
    rgb = np.clip(color(vertices[:, 0], vertices[:, 1]), 0, 255).round().astype(np.uint8)
    mesh = Mesh(vertices.astype(np.float32), faces, rgb)
    return [render_vertex_colors(mesh, view, samples=2)[0] for view in views]


def arc(count=5):
    """Views on an arc over the sheet."""
    return [
        camera(k, (1.6 * np.sin(a), 0.3 * (-1) ** k, 2.2 * np.cos(a)))
        for k, a in enumerate(np.linspace(-0.7, 0.7, count))
    ]


def drawn(mesh, view, samples=2):
    """A picture of a textured mesh, and where at least half of a pixel's rays meet it."""
    centre = mesh.vertices.mean(axis=0)
    vertex, uv, faces = split_vertices(mesh)
    surface = Surface(mesh.vertices[vertex] - centre, faces, uv=uv, texture=mesh.texture)
    pose = view.cam_from_world.copy()
    pose[:, 3] += pose[:, :3] @ centre
    canvas = Canvas.blank(replace(view, cam_from_world=pose), (0, 0, 0), samples)
    surface.draw(canvas, "texture")
    rays = np.isfinite(canvas.depth).reshape(view.height, samples, view.width, samples)
    share = rays.mean(axis=(1, 3))
    picture = canvas.picture() / np.maximum(share, 0.25)[..., None]  # the mean of the rays that meet it
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), share >= 0.5
