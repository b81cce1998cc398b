"""Colours in the live viewer are those of the photos."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("viser", reason="viser is not installed")

from recon.live.tone import BRIGHTEST, before_tone_mapping, picture_before_tone_mapping


def tone_mapped(linear: np.ndarray) -> np.ndarray:
    """What the browser makes of linear colours (ACESFilmicToneMapping of three.js, exposure 1): sRGB in 0…1."""
    to_film = np.array(
        [[0.59719, 0.35458, 0.04823], [0.07600, 0.90834, 0.01566], [0.02840, 0.13383, 0.83777]]
    )
    from_film = np.array(
        [[1.60475, -0.53108, -0.07367], [-0.10208, 1.10813, -0.00605], [-0.00327, -0.07276, 1.07602]]
    )
    film = np.asarray(linear, np.float64) / 0.6 @ to_film.T
    film = (film * (film + 0.0245786) - 0.000090537) / (film * (0.983729 * film + 0.4329510) + 0.238081)
    seen = np.clip(film @ from_film.T, 0.0, 1.0)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055).astype(np.float32)


def test_undone_and_mapped_again_colours_are_the_same() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(20, 236, (5000, 3)).astype(np.uint8)
    grey = rgb // 2 + 60  # neither very saturated nor at the ends
    seen = 255 * tone_mapped(before_tone_mapping(grey))
    assert np.abs(seen - grey).max() < 0.6
    assert np.abs(255 * tone_mapped(before_tone_mapping(rgb)) - rgb).mean() < 3.0


def test_tone_mapping_is_what_the_canvas_does() -> None:
    # Read off a screenshot of an unlit material of these colours.
    linear = np.array([[0.5906, 0.4452, 0.0232], [0.4397, 0.1845, 0.0222]])
    assert np.abs(255 * tone_mapped(linear) - [[207, 193, 70], [192, 127, 40]]).max() < 6


def test_textures_keep_their_colours_to_a_few_levels() -> None:
    ramp = np.repeat(np.arange(0, 230, dtype=np.uint8)[None, :, None], 3, axis=2)
    stored = picture_before_tone_mapping(ramp) / 255
    linear = BRIGHTEST * np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    assert np.abs(255 * tone_mapped(linear.astype(np.float32)) - ramp).max() < 3.5
