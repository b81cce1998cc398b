"""Colours that come out of the browser's tone mapping as they are in the photos.

The viewer's canvas maps every material's colours with the ACES filmic curve (Stephen Hill's fit, as three.js has it),
which is meant for lit scenes and changes photos. Meshes and photos are given the colours that it maps onto the wanted
ones.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, UInt8

from recon.core.kernels import kernel, maximum, minimum
from recon.io.glb import linear_of_srgb, srgb_of_linear

# A texture holds colours up to this linear value; tone mapping makes 237 of 255 of it.
BRIGHTEST = 1.5

_EXPOSURE = 0.6
_TO_FILM = np.array([[0.59719, 0.35458, 0.04823], [0.07600, 0.90834, 0.01566], [0.02840, 0.13383, 0.83777]])
_FROM_FILM = np.array(
    [[1.60475, -0.53108, -0.07367], [-0.10208, 1.10813, -0.00605], [-0.00327, -0.07276, 1.07602]]
)
_A, _B, _C, _D, _E = 0.0245786, 0.000090537, 0.983729, 0.4329510, 0.238081
_LINEAR = linear_of_srgb(np.arange(256) / 255)


def before_tone_mapping(rgb: UInt8[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """Linear colours that are seen as these sRGB ones; where none are, the nearest that are not negative."""
    out = np.empty(rgb.shape, np.float32)
    _undo(np.ascontiguousarray(rgb), out, _LINEAR, np.linalg.inv(_FROM_FILM), np.linalg.inv(_TO_FILM))
    return out


def picture_before_tone_mapping(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """A texture that is seen as this picture when its colours are multiplied by ``BRIGHTEST``."""
    steps = np.linspace(0.0, 1.0, 4096)
    table = srgb_of_linear(steps)
    out = np.empty(rgb.shape, np.uint8)
    for row in range(len(rgb)):
        linear = before_tone_mapping(rgb[row])
        out[row] = table[
            np.minimum(linear * np.float32(4095 / BRIGHTEST) + np.float32(0.5), 4095).astype(np.int32)
        ]
    return out


@kernel()
def _undo(rgb, out, linear, to_film, from_film):  # type: ignore[no-untyped-def]
    film = np.empty(3)
    for i in range(len(rgb)):
        for k in range(3):
            value = 0.0
            for j in range(3):
                value += to_film[k, j] * linear[rgb[i, j]]
            value = minimum(maximum(value, 0.0), 0.99)
            # value = (x (x + A) - B) / (x (C x + D) + E), solved for the positive x
            a = 1.0 - _C * value
            b = _A - _D * value
            c = -_B - _E * value
            film[k] = (-b + math.sqrt(maximum(b * b - 4.0 * a * c, 0.0))) / (2.0 * a)
        for k in range(3):
            value = 0.0
            for j in range(3):
                value += from_film[k, j] * film[j]
            out[i, k] = maximum(value * _EXPOSURE, 0.0)
