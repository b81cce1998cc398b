"""Positions on the Earth in metres: Earth-centred, local (east, north, up) and UTM, all on WGS 84."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float64

WGS84_A = 6378137.0
"""Semi-major axis in metres (NIMA TR8350.2)."""
WGS84_F = 1 / 298.257223563
"""Flattening (NIMA TR8350.2)."""
UTM_SCALE = 0.9996
UTM_FALSE_EASTING = 500_000.0
UTM_FALSE_NORTHING_SOUTH = 10_000_000.0


def ecef_from_geodetic(positions: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
    """Earth-centred coordinates in metres of (latitude, longitude in degrees, height in metres), WGS 84."""
    p = np.asarray(positions, np.float64)
    lat, lon, h = np.radians(p[:, 0]), np.radians(p[:, 1]), p[:, 2]
    e2 = WGS84_F * (2 - WGS84_F)
    n = WGS84_A / np.sqrt(1 - e2 * np.sin(lat) ** 2)
    return np.column_stack(
        [
            (n + h) * np.cos(lat) * np.cos(lon),
            (n + h) * np.cos(lat) * np.sin(lon),
            (n * (1 - e2) + h) * np.sin(lat),
        ]
    )


def enu_from_geodetic(
    positions: Float[np.ndarray, "n 3"], origin: Float[np.ndarray, "3"]
) -> Float64[np.ndarray, "n 3"]:
    """Metres east, north and up of an origin; all as (latitude, longitude in degrees, height)."""
    lat, lon = np.radians(np.asarray(origin, np.float64)[:2])
    east = np.array([-np.sin(lon), np.cos(lon), 0.0])
    north = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    up = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    centre = ecef_from_geodetic(np.asarray(origin, np.float64)[None])
    return np.asarray((ecef_from_geodetic(positions) - centre) @ np.stack([east, north, up]).T)


def utm_zone(longitude: float) -> int:
    """The UTM zone (1…60) of a place; the exceptions of Norway and Svalbard are not made."""
    return math.floor((longitude + 180.0) / 6.0) % 60 + 1


def utm_epsg(latitude: float, longitude: float) -> int:
    """EPSG code of WGS 84 / UTM at a place."""
    return (32600 if latitude >= 0 else 32700) + utm_zone(longitude)


def transverse_mercator_of(epsg: int) -> tuple[int, bool] | None:
    """UTM zone and whether it is south of the equator, of the codes of UTM on WGS 84 and ETRS89; None for others."""
    for base, south in ((32600, False), (32700, True), (25800, False)):
        if base < epsg <= base + 60:
            return epsg - base, south
    return None


def utm_from_geodetic(
    positions: Float[np.ndarray, "n 3"], zone: int, south: bool
) -> Float64[np.ndarray, "n 3"]:
    """Easting, northing and height in metres in one UTM zone, of (latitude, longitude in degrees, height).

    Source: Karney, "Transverse Mercator with an accuracy of a few nanometers", J. Geodesy 2011, equations 7 to
    9 and 35 (Krüger's series to the sixth order of the third flattening).
    """
    p = np.asarray(positions, np.float64)
    phi = np.radians(p[:, 0])
    lam = np.radians(p[:, 1] - (zone * 6.0 - 183.0))
    n = WGS84_F / (2 - WGS84_F)
    e = math.sqrt(WGS84_F * (2 - WGS84_F))
    radius = WGS84_A / (1 + n) * (1 + n**2 / 4 + n**4 / 64 + n**6 / 256)
    alpha = (
        n / 2 - 2 * n**2 / 3 + 5 * n**3 / 16 + 41 * n**4 / 180 - 127 * n**5 / 288 + 7891 * n**6 / 37800,
        13 * n**2 / 48 - 3 * n**3 / 5 + 557 * n**4 / 1440 + 281 * n**5 / 630 - 1983433 * n**6 / 1935360,
        61 * n**3 / 240 - 103 * n**4 / 140 + 15061 * n**5 / 26880 + 167603 * n**6 / 181440,
        49561 * n**4 / 161280 - 179 * n**5 / 168 + 6601661 * n**6 / 7257600,
        34729 * n**5 / 80640 - 3418889 * n**6 / 1995840,
        212378941 * n**6 / 319334400,
    )
    tau = np.tan(phi)
    sigma = np.sinh(e * np.arctanh(e * tau / np.sqrt(1 + tau**2)))
    conformal = tau * np.sqrt(1 + sigma**2) - sigma * np.sqrt(1 + tau**2)
    xi = np.arctan2(conformal, np.cos(lam))
    eta = np.arcsinh(np.sin(lam) / np.sqrt(conformal**2 + np.cos(lam) ** 2))
    north, east = xi.copy(), eta.copy()
    for j, a in enumerate(alpha, 1):
        north += a * np.sin(2 * j * xi) * np.cosh(2 * j * eta)
        east += a * np.cos(2 * j * xi) * np.sinh(2 * j * eta)
    return np.column_stack(
        [
            UTM_FALSE_EASTING + UTM_SCALE * radius * east,
            (UTM_FALSE_NORTHING_SOUTH if south else 0.0) + UTM_SCALE * radius * north,
            p[:, 2],
        ]
    )
