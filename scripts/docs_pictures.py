"""Makes the pictures of the README and the docs from a finished demo: ``python scripts/docs_pictures.py [RUN]``.

RUN is ``demo-output/run``, as ``make demo`` leaves it. Each picture is one ``recon render``, which is printed.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from recon.cli import main  # noqa: E402

IMAGES = ROOT / "docs" / "images"
LARGEST = 200_000
"""Bytes that a picture may have: a README is read on phones."""

PICTURES = {
    "demo.jpg": "--cameras --at 0.3 --size 1200x620",
    "demo_clay.jpg": "--layer mesh --shaded --at 0.25 --size 800x450",
    "demo_cloud.jpg": "--layer dense --cameras --at 0.62 --size 800x450",
    "demo_sparse.jpg": "--layer sparse --cameras --at 0.5 --size 800x450 --background 14181c",
}


def make_all(run: Path) -> int:
    for name, options in PICTURES.items():
        print(f"recon render {shlex.quote(str(run))} {options} --out docs/images/{name}")
        if main(["render", str(run), *options.split(), "--samples", "3", "--out", str(IMAGES / name)]):
            return 1
        size = (IMAGES / name).stat().st_size
        if size > LARGEST:
            print(f"error: {name} has {size} bytes, {LARGEST} are allowed", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(make_all(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output/run")))
