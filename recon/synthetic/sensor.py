"""A camera's effects on the light: blur, exposure, noise, gamma, 8 bits, JPEG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8


@dataclass(frozen=True)
class Sensor:
    """A camera's effects on the light, in this order: lens blur, exposure, noise, gamma, 8 bits, JPEG.

    Attributes:
        blur: standard deviation of the lens blur in pixels.
        exposure_spread: each photo's exposure is drawn from 2 ** ±exposure_spread (in stops).
        full_well: electrons at white; shot noise is Poisson of the signal in electrons.
        read_noise: standard deviation in electrons.
        jpeg_quality: 0 leaves JPEG out.
    """

    blur: float = 0.6
    exposure_spread: float = 0.2
    full_well: float = 8000.0
    read_noise: float = 8.0
    jpeg_quality: int = 93


def photograph(
    radiance: Float32[np.ndarray, "h w 3"], sensor: Sensor, exposure: float, seed: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Turn linear radiance into a photo: blur, exposure, shot and read noise, gamma 2.2, 8 bits, JPEG.

    Args:
        radiance: (h, w, 3) linear, 1 is white at exposure 1.
        sensor: the camera.
        exposure: factor on the light.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    light: Any = radiance * np.float32(exposure)
    if sensor.blur > 0:
        light = cv2.GaussianBlur(light, (0, 0), sensor.blur, borderType=cv2.BORDER_REPLICATE)
    if sensor.full_well > 0:
        electrons = np.maximum(light, 0) * sensor.full_well
        # Thousands of electrons: the normal distribution stands in for Poisson's, with the same variance.
        deviation = np.sqrt(electrons + sensor.read_noise**2)
        noise = rng.standard_normal(light.shape, dtype=np.float32)
        light = (electrons + deviation * noise) / np.float32(sensor.full_well)
    coded = np.clip(light, 0, 1) ** np.float32(1 / 2.2)
    rgb = np.rint(coded * 255).astype(np.uint8)
    if sensor.jpeg_quality > 0:
        done, data = cv2.imencode(
            ".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, sensor.jpeg_quality]
        )
        assert done
        rgb = np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1])
    return rgb
