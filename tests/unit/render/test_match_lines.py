"""Matches drawn as lines between two photos."""

from __future__ import annotations

import warnings

import numpy as np

from recon.render.match_lines import match_lines_picture


def test_matches_without_a_place_are_not_shown() -> None:
    photo = np.full((40, 60, 3), 120, np.uint8)
    xy = np.array([[10, 10], [30, 20], [50, 30]], np.float32)
    agrees = np.array([True, False, True])
    lost = xy.copy()
    lost[1] = np.nan, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = match_lines_picture(photo, photo, xy, lost, agrees)
        none = match_lines_picture(photo, photo, lost[1:2], xy[1:2])
    np.testing.assert_array_equal(drawn, match_lines_picture(photo, photo, xy[::2], xy[::2], agrees[::2]))
    assert (drawn != none).any()
    np.testing.assert_array_equal(none, match_lines_picture(photo, photo, xy[:0], xy[:0]))
