"""A report of a made-up run: five cameras on an arc before a wavy sheet, and names that could do harm."""

from __future__ import annotations

import cv2
import numpy as np

from recon.core.cameras import PinholeView
from recon.report.content import (
    Histogram,
    ModelRow,
    PairEntry,
    PhotoEntry,
    Picture,
    Points,
    ReportContent,
    StageRow,
    Surface,
)

NAMES = (
    "<script>alert(1)</script>.jpg",
    "Ünï cödé/夏 photo.jpg",
    '"><img src=x onerror=alert(2)>.jpg',
    "a & b's.jpg",
    "plain.jpg",
)
WIDTH, HEIGHT = 320, 240


def picture(seed: int = 0, width: int = WIDTH, height: int = HEIGHT, title: str = "") -> Picture:
    rng = np.random.default_rng(seed)
    small = rng.integers(40, 220, (6, 8, 3)).astype(np.uint8)
    rgb = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return Picture(cv2.imencode(".jpg", rgb)[1].tobytes(), width, height, title, "a caption <b>&</b>")


def view(number: int, offset: np.ndarray) -> PinholeView:
    """A camera that looks at the sheet from 4 units away, its principal point off the middle."""
    angle = np.radians(-30 + 15 * number)
    z = np.array([np.sin(angle), 0.0, np.cos(angle)])
    x = np.array([np.cos(angle), 0.0, -np.sin(angle)])
    R = np.stack([x, np.array([0.0, 1.0, 0.0]), z])
    center = offset - 4.0 * z
    K = np.array([[300.0, 0.0, 150.0], [0.0, 310.0, 125.0], [0.0, 0.0, 1.0]])
    return PinholeView(number, NAMES[number], K, np.column_stack([R, -R @ center]), WIDTH, HEIGHT)


def sheet(offset: np.ndarray, rows: int = 40) -> Surface:
    u, v = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-0.8, 0.8, rows))
    xyz = np.stack([u, v, 0.2 * np.sin(4 * u)], -1).reshape(-1, 3) + offset
    corner = np.arange(rows * rows).reshape(rows, rows)
    a, b, c, d = (
        part.ravel() for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1])
    )
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    rgb = np.stack([u * 100 + 120, v * 100 + 120, 0 * u + 90], -1).reshape(-1, 3).astype(np.uint8)
    return Surface(xyz, faces, rgb)


def textured(offset: np.ndarray) -> Surface:
    plain = sheet(offset)
    local = plain.xyz - offset
    uv = np.stack([(local[:, 0] + 1) / 2, (local[:, 1] + 0.8) / 1.6], -1)
    return Surface(plain.xyz, plain.faces, uv=uv, texture=picture(9).data)


def content(offset: tuple[float, float, float] = (0.0, 0.0, 0.0), texture: bool = True) -> ReportContent:
    at = np.array(offset)
    rng = np.random.default_rng(0)
    xyz = np.column_stack([rng.uniform(-1, 1, 4000), rng.uniform(-0.8, 0.8, 4000), np.zeros(4000)]) + at
    rgb = rng.integers(60, 255, (4000, 3)).astype(np.uint8)
    photos = [
        PhotoEntry(
            name,
            view(i, at) if i < 4 else None,
            "" if i < 4 else "too few matches <i>here</i>",
            picture(i),
            (3200, 2400),
            "PINHOLE" if i < 4 else "",
            100 * i + 7,
            0.5 if i < 4 else None,
            3 if i < 4 else 0,
        )
        for i, name in enumerate(NAMES)
    ]
    pairs = [PairEntry(a, b, 100 * (a + b), 0.9, "E", 5.0) for a in range(4) for b in range(a + 1, 4)]
    pairs.append(PairEntry(0, 4, kept=False, sparse=3))
    return ReportContent(
        title="Reconstruction of <b>harm</b>",
        lead="Recipe x",
        facts=[("Photos", "4 registered of 5 given")],
        photos=photos,
        photo_names=NAMES,
        sparse=Points(xyz[:500], rgb[:500]),
        dense=Points(xyz, rgb),
        surface=textured(at) if texture else sheet(at),
        still=picture(7),
        pairs=pairs,
        strongest=[picture(11, title=NAMES[0])],
        weakest=[picture(12, title=NAMES[1])],
        matches_note="how to read them",
        depth=[picture(13, title=NAMES[2])],
        histograms=[
            Histogram("track-length", "Track length", "photos", np.array([2.0, 2, 3, 4]), whole=True),
            Histogram("angle", "Triangulation angle", "°", rng.uniform(1, 40, 500)),
        ],
        stages=[
            StageRow("photos", "done", 1.0, 1.0, 100.0, "5 photos"),
            StageRow("match", "failed", 10.0, 20.0, 300.0, ""),
        ],
        models=[ModelRow("sparse/0", NAMES[:4], 500), ModelRow("sparse/1", NAMES[3:], 20)],
        warnings=["<script>alert(3)</script> was said"],
        command="recon reconstruct 'a b' --out AGAIN",
        recipe='name = "</pre><script>alert(4)</script>"',
        machine="a machine",
        versions={"recon": "1"},
        files=[("Mesh", "/a b/mesh.ply")],
    )
