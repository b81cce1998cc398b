"""Small photos of known content."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def picture() -> np.ndarray:
    """A smooth colourful picture, 96x64, whose four corners differ."""
    y, x = np.mgrid[0:64, 0:96]
    return np.dstack([x * 2.5, y * 3.5, 255 - x - y]).astype(np.uint8)
