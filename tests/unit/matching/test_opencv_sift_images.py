"""The contribution's classes: scale maps by its linear system, SIFT images against OpenCV's, files byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

import recon
from recon.errors import ReconError, UsageError
from recon.io.sift_image import read_sift_image, write_sift_image
from tests.support.matcher_contract import textured


@pytest.mark.parametrize("exponential", [False, True])
def test_a_scale_map_solves_the_contributions_equations(exponential: bool) -> None:
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.random((14, 17)).astype(np.float32), (0, 0), 2)
    points = [cv2.KeyPoint(3.6, 4.2, 2.5), cv2.KeyPoint(12.0, 9.9, 7.0), cv2.KeyPoint(15.0, 1.0, 4.0)]
    got = recon.ScaleMap.create(exponential).compute(image, points)
    height, width = image.shape
    scaled = (image.astype(float) + 1) / 32
    system, right = np.eye(height * width), np.zeros(height * width)
    seeds = {(int(p.pt[1]), int(p.pt[0])): p.size for p in points}
    for y in range(height):
        for x in range(width):
            if (y, x) in seeds:
                right[y * width + x] = seeds[y, x]
                continue
            window = scaled[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            mean, variance = 0.6 * window.mean(), max(window.var(ddof=1), 1e-7)
            around = [
                (v, u)
                for v in range(max(y - 1, 0), min(y + 2, height))
                for u in range(max(x - 1, 0), min(x + 2, width))
                if (v, u) != (y, x)
            ]
            values = np.array([scaled[one] for one in around])
            if exponential:
                weights = np.exp(-((values - scaled[y, x]) ** 2) / (0.6 * variance))
            else:
                weights = 1 + (values - mean) * (scaled[y, x] - mean) / variance
            for (v, u), weight in zip(around, weights / weights.sum(), strict=True):
                system[y * width + x, v * width + u] -= weight
    expected = np.linalg.solve(system, right).reshape(height, width)
    np.testing.assert_allclose(got, expected, rtol=2e-3)
    given = np.empty((height, width), np.float32)
    assert recon.ScaleMap(exponential).compute(image, points, given) is given
    assert (recon.ScaleMap().compute(image, []) == 3).all()


def test_a_sift_image_is_nearly_opencvs() -> None:
    """The same cells and directions: OpenCV's key points of size 3, whose directions turn with y upwards."""
    photo = cv2.GaussianBlur(textured(60, 70), (0, 0), 1.5)
    ours = recon.SiftImageExtractor.create().compute(photo)
    assert ours.shape == (60, 70, 128)
    assert ours.dtype == np.float32
    rows, columns = (axis.ravel() for axis in np.mgrid[20:40:4, 20:50:4])
    points = [cv2.KeyPoint(float(x), float(y), 3.0, 0.0) for y, x in zip(rows, columns, strict=True)]
    _, theirs = cv2.SIFT_create().compute(cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY), points)
    theirs = theirs.reshape(-1, 16, 8)[:, :, (-np.arange(8)) % 8].reshape(-1, 128)
    own = ours[rows, columns]
    cosine = (own * theirs).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(theirs, axis=1)
    assert np.median(cosine) > 0.95
    turned = own.reshape(-1, 16, 8)[:, :, (-np.arange(8)) % 8].reshape(-1, 128)
    assert (
        np.median((turned * theirs).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(theirs, axis=1))
        < 0.9
    )


def test_calc_takes_sift_images_and_files_keep_them(tmp_path: Path) -> None:
    whole = textured(112, 144)
    a, b = whole[16:96, 16:128], whole[19:99, 11:123]
    extractor = recon.SiftImageExtractor(recon.SiftImageExtractor.SCALE_LINEAR)
    sift_a, sift_b = extractor.compute(a, b)
    flow = recon.DenseOpticalFlow("dsift-flow").calc(sift_a, sift_b)
    np.testing.assert_array_equal(flow, np.rint(flow))
    assert (flow[20:-20, 20:-20] == (5, -3)).all(-1).mean() > 0.95
    same = recon.DenseOpticalFlow("dsift-flow").calc(sift_a.astype(np.uint8), sift_b.astype(np.uint8))
    np.testing.assert_array_equal(flow, same)
    path = tmp_path / "a.sift"
    write_sift_image(path, sift_a)
    assert path.read_bytes() == struct.pack("<ii", 112, 80) + sift_a.astype("<f4").tobytes()
    np.testing.assert_array_equal(read_sift_image(path), sift_a)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ReconError, match="112 x 80"):
        read_sift_image(path)
    with pytest.raises(UsageError, match="must be one too"):
        recon.DenseOpticalFlow("dsift-flow").calc(sift_a, b)
    with pytest.raises(UsageError, match="no SIFT images"):
        recon.DenseOpticalFlow("dis").calc(sift_a, sift_b)
    with pytest.raises(UsageError, match="scale_format"):
        recon.SiftImageExtractor(3)
