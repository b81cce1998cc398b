"""The even background of a photo, told from the thing before it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8

from recon.photos.background import even_background

SIZE = (200, 150)
XS, YS = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))


def ball(radius: float, colour: int, middle: tuple[float, float] = (100, 75)) -> UInt8[np.ndarray, "h w 3"]:
    """A pale ball, darker to its rim, before an even background with the noise of a sensor."""
    rng = np.random.default_rng(0)
    away = np.hypot(XS - middle[0], YS - middle[1]) / radius
    shade = np.where(away < 1, 110 + 60 * np.sqrt(np.maximum(1 - away**2, 0)), colour)
    noisy = cv2.GaussianBlur(shade, (0, 0), 0.6)[..., None] + rng.normal(0, 1.5, (*shade.shape, 3))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("colour", [2, 60, 245])
def test_the_background_is_found_up_to_the_outline_and_nothing_of_the_thing(colour: int) -> None:
    found = even_background(ball(50, colour))
    away = np.hypot(XS - 100, YS - 75)
    assert found[away > 53].mean() > 0.999
    assert not found[away < 48].any()


def test_a_hole_of_the_same_colour_is_not_known_to_be_background() -> None:
    picture = ball(50, 2)
    picture[65:85, 90:110] = 2
    assert not even_background(picture)[67:83, 92:108].any()


def test_a_thing_of_thin_rods_is_left_with_its_outlines() -> None:
    rods = np.full((150, 200, 3), 2, np.uint8)
    for x in range(20, 180, 24):
        rods[20:130, x : x + 8] = 180
    assert even_background(rods).mean() > 0.5
    assert not even_background(rods, 7).any()
    assert even_background(ball(50, 2), 7).mean() > 0.5


def test_photos_without_an_even_background_have_none() -> None:
    rng = np.random.default_rng(1)
    rock = np.clip(128 + 60 * cv2.GaussianBlur(rng.standard_normal((*SIZE[::-1], 3)), (0, 0), 2) * 7, 0, 255)
    assert not even_background(rock.astype(np.uint8)).any()
    assert not even_background(ball(400, 2)).any()  # it fills the photo
    thing = ball(90, 2)
    thing[:40], thing[110:] = 90, 150  # the border has three colours
    assert not even_background(thing).any()
