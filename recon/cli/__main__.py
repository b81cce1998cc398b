"""``python -m recon.cli``."""

import sys

from recon.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
