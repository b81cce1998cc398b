"""Readers of the official layouts of public data sets, one module each; all end in recon's conventions."""

from __future__ import annotations

from recon.datasets.readers import (
    colmap,
    dtu,
    eth3d,
    middlebury,
    mvsnet,
    pair_lists,
    strecha,
    tanks_and_temples,
    uniform,
)
from recon.datasets.readers.common import Reader

READERS: tuple[Reader, ...] = (
    pair_lists.READER,
    uniform.READER,
    eth3d.READER,
    tanks_and_temples.READER,
    dtu.READER,
    mvsnet.BLENDED,
    mvsnet.MVSNET,
    strecha.READER,
    middlebury.STEREO,
    middlebury.FLOW,
    colmap.READER,
)
"""In the order in which a folder is tried; the most particular first."""
