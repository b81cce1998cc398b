"""``python -m recon.cli``."""

import sys

from recon.cli.app import main

sys.exit(main())
