"""OpenCV comes before pycolmap wherever both are imported: the other way round PNG writing corrupts memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import recon

PACKAGE = Path(recon.__file__).parent


def test_one_file_imports_pycolmap_and_opencv_before_it() -> None:
    named = re.compile(r"^ *(import|from) (pycolmap|cv2)\b", re.MULTILINE)
    importing = {
        path.relative_to(PACKAGE).as_posix(): [found[2] for found in named.finditer(text)]
        for path in PACKAGE.rglob("*.py")
        if "pycolmap" in (text := path.read_text(encoding="utf-8"))
    }
    assert {path: names for path, names in importing.items() if "pycolmap" in names} == {
        "core/colmap.py": ["cv2", "pycolmap"]
    }


@pytest.mark.parametrize("module", ["recon.sfm.mapping", "recon.graph.two_view", "recon.exports.scene"])
def test_a_module_imported_alone_has_opencv_first(module: str) -> None:
    code = f"import sys, {module}; names = list(sys.modules); print(names.index('cv2') < names.index('pycolmap'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "True"
