"""Makes the photos of the demo that come with the package: ``python scripts/demo_photos.py [FOLDER]``.

They are the scene ``demo`` at its usual size and seed, as JPEG. ``recon demo`` reads them instead of rendering them
each time, which takes as long as a good part of the reconstruction.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recon.synthetic.files import write_photo
from recon.synthetic.presets import DEMO_PHOTOS, make_scene


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO_PHOTOS
    folder.mkdir(parents=True, exist_ok=True)
    scene = make_scene("demo")
    for image, view in zip(scene.images, scene.views, strict=True):
        # The renderer's camera has compressed them once, with the same tables.
        write_photo(folder / Path(view.name).with_suffix(".jpg").name, image, view, quality=93)


if __name__ == "__main__":
    main()
