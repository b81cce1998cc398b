"""Photos in, mesh out, from a checkout without installing it: ``python run_pipeline.py PHOTOS --out OUT``.

The same as ``recon reconstruct``; ``python run_pipeline.py --help`` lists the options.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


def main() -> int:
    """Hand the arguments to ``recon reconstruct``."""
    try:
        from recon.cli import main as recon_main
    except ModuleNotFoundError as error:
        sys.exit(
            f"error: the library {error.name!r} is not installed in {sys.executable}.\n"
            "'make setup' makes a virtual environment with all of them: .venv/bin/python run_pipeline.py"
        )
    return recon_main(["reconstruct", *sys.argv[1:]], program="recon")


if __name__ == "__main__":
    sys.exit(main())
