"""Readers of the official layouts of public data sets, one module each; all end in recon's conventions."""

from __future__ import annotations

from recon.datasets.readers import uniform
from recon.datasets.readers.common import Reader

READERS: tuple[Reader, ...] = (uniform.READER,)
"""In the order in which a folder is tried; the most particular first."""
