"""Open3D, loaded without the web server behind its charts, which takes longer than all the rest of it.

from recon.core.open3d import o3d  # within a function: loading still takes most of a second
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_CHARTS = "open3d.visualization.draw_plotly"


def _load() -> Any:
    """Open3D; its functions that draw charts load what they need when they are called."""
    if "open3d" in sys.modules:
        return sys.modules["open3d"]

    def later(name: str) -> Any:
        return lambda *args, **kwargs: getattr(importlib.import_module(_CHARTS), name)(*args, **kwargs)

    stand_in = ModuleType(_CHARTS)
    for name in ("get_plotly_fig", "draw_plotly", "draw_plotly_server"):
        setattr(stand_in, name, later(name))
    sys.modules[_CHARTS] = stand_in
    try:
        return importlib.import_module("open3d")
    finally:
        del sys.modules[_CHARTS]


o3d: Any = _load()
