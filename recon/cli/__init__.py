"""The command line: one file for each verb; nothing heavy is imported before a command runs."""

import os

# Threads work on photos and pairs, on small matrices each; more threads in each of their products wait for one another.
# BLAS reads this when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from recon.cli.app import main

__all__ = ["main"]
