"""What COLMAP logs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_no_log_files_are_left_in_the_temporary_folder(tmp_path: Path) -> None:
    code = "from recon.core.colmap import pycolmap; pycolmap.logging.warning('look here')"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "look here" in ended.stderr
    assert not list(tmp_path.iterdir())
