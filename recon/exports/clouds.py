"""Point clouds for other programs: PLY with normals, LAS with its place on the Earth."""

from __future__ import annotations

import datetime
import struct

import numpy as np
from jaxtyping import Float

from recon.core.mesh import PointCloud
from recon.io.surfaces import ply_header

PLY_POINT = np.dtype(
    [
        ("x", "<f4"), ("y", "<f4"), ("z", "<f4"),
        ("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4"),
        ("red", "u1"), ("green", "u1"), ("blue", "u1"),
    ]
)  # fmt: skip

LAS_RESOLUTION_BITS = 30
"""Coordinates of a LAS file are 32-bit integers: the extent is spread over this many bits of them."""


def to_ply(
    cloud: PointCloud, comments: tuple[str, ...] = (), sigma: Float[np.ndarray, "n 3"] | None = None
) -> bytes:
    """A binary PLY: x y z, nx ny nz (float) and red green blue (uchar); with ``sigma`` the coordinates' standard
    deviations as sigma_x, sigma_y, sigma_z (float).

    Coordinates are single precision: give them near the origin, and name an offset in a comment.
    """
    more = [] if sigma is None else [(f"sigma_{axis}", "<f4") for axis in "xyz"]
    rows = np.empty(len(cloud), np.dtype(PLY_POINT.descr + more))
    for axis, name in enumerate("xyz"):
        rows[name] = cloud.xyz[:, axis]
        rows["n" + name] = 0.0 if cloud.normals is None else cloud.normals[:, axis]
    for axis, name in enumerate(("red", "green", "blue")):
        rows[name] = 0 if cloud.rgb is None else cloud.rgb[:, axis]
    if sigma is not None:
        for axis, name in enumerate("xyz"):
            rows[f"sigma_{name}"] = sigma[:, axis]
    return ply_header(rows, comments) + rows.tobytes()


def to_las(
    cloud: PointCloud,
    offset: Float[np.ndarray, "3"] | None = None,
    epsg: int | None = None,
    resolution: float | None = None,
    created: datetime.date | None = None,
) -> bytes:
    """A LAS 1.2 file, point format 2 (with colours).

    Source: ASPRS LAS 1.2 specification; the coordinate system is a GeoTIFF key directory (GeoTIFF 1.0,
    sections 2.4 and 6).

    Args:
        cloud: in a local frame.
        offset: to add to get coordinates of the reference system; kept as the file's own offset, so nothing
            is lost to rounding.
        epsg: code of the projected reference system, None for a local one.
        resolution: unit of the stored integers; by default a power of ten that spreads the extent over
            30 bits, but no finer than 1e-4 where the file has a reference system (metres).
        created: the day that the header names, None for none.

    Raises:
        ValueError: no points, or a resolution too fine for the extent.
    """
    if not len(cloud):
        raise ValueError("a cloud without points")
    base = np.zeros(3) if offset is None else np.asarray(offset, np.float64)
    largest = float(np.abs(cloud.xyz).max())
    if resolution is None:
        finest = 10.0 ** np.ceil(np.log10(max(largest, 1e-9) / 2**LAS_RESOLUTION_BITS))
        resolution = float(max(finest, 1e-4) if epsg is not None else finest)
    if largest / resolution >= 2**31 - 1:
        raise ValueError(f"an extent of {largest:g} does not fit at a resolution of {resolution:g}")
    stored = np.rint(cloud.xyz / resolution).astype(np.int32)
    rows = np.zeros(
        len(cloud),
        np.dtype(
            [
                ("xyz", "<i4", 3), ("intensity", "<u2"), ("returns", "u1"), ("class", "u1"),
                ("angle", "i1"), ("user", "u1"), ("source", "<u2"), ("rgb", "<u2", 3),
            ]
        ),
    )  # fmt: skip
    rows["xyz"] = stored
    rows["returns"] = 0b001_001  # the first of one
    if cloud.rgb is not None:
        rows["rgb"] = cloud.rgb.astype(np.uint16) * 257
    records = _geo_keys(epsg)
    header_size = 227
    day = (created.timetuple().tm_yday, created.year) if created is not None else (0, 0)
    low = stored.min(axis=0) * resolution + base
    high = stored.max(axis=0) * resolution + base
    header = struct.pack(
        "<4sHHIHH8sBB32s32sHHHIIBHI5I3d3d6d",
        b"LASF", 0, 0, 0, 0, 0, b"\0" * 8, 1, 2, b"recon", b"recon", *day, header_size,
        header_size + len(records), 1 if records else 0, 2, rows.dtype.itemsize, len(rows),
        len(rows), 0, 0, 0, 0, *([resolution] * 3), *base,
        high[0], low[0], high[1], low[1], high[2], low[2],
    )  # fmt: skip
    assert len(header) == header_size
    return header + records + rows.tobytes()


def _geo_keys(epsg: int | None) -> bytes:
    """The variable length record that names a projected reference system in metres."""
    if epsg is None:
        return b""
    keys = [
        (1024, 0, 1, 1),  # GTModelTypeGeoKey: projected
        (1025, 0, 1, 1),  # GTRasterTypeGeoKey: areas
        (3072, 0, 1, epsg),  # ProjectedCSTypeGeoKey
        (3076, 0, 1, 9001),  # ProjLinearUnitsGeoKey: metre
        (4099, 0, 1, 9001),  # VerticalUnitsGeoKey: metre
    ]
    body = struct.pack("<4H", 1, 1, 0, len(keys)) + b"".join(struct.pack("<4H", *key) for key in keys)
    return struct.pack("<H16sHH32s", 0, b"LASF_Projection", 34735, len(body), b"GeoKeyDirectoryTag") + body
