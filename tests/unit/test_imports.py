"""OpenCV comes before pycolmap wherever both are imported: the other way round PNG writing corrupts memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import recon

PACKAGE = Path(recon.__file__).parent
MODULES = sorted(
    ".".join(("recon", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if "import pycolmap" in path.read_text(encoding="utf-8")
)


def test_every_file_imports_opencv_before_pycolmap() -> None:
    for path in PACKAGE.rglob("*.py"):
        lines = [line.strip().split("  #")[0] for line in path.read_text(encoding="utf-8").splitlines()]
        for number, line in enumerate(lines):
            if line == "import pycolmap":
                assert "import cv2" in lines[:number], path


@pytest.mark.parametrize("module", ["recon.sfm.mapping", "recon.graph.two_view", "recon.exports.scene"])
def test_a_module_imported_alone_has_opencv_first(module: str) -> None:
    assert module in MODULES
    code = f"import sys, {module}; names = list(sys.modules); print(names.index('cv2') < names.index('pycolmap'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "True"
