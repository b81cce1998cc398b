from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recon.errors import UsageError
from recon.matching.belief_propagation import data_costs
from recon.matching.siftflow import (
    SCALEMAPS,
    TPAMI,
    SiftFlowSettings,
    flow_energy,
    halve_descriptors,
    sift_flow,
)


def descriptors(h: int, w: int, seed: int = 0) -> np.ndarray:
    import cv2

    noise = np.random.default_rng(seed).standard_normal((h, w, 128)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(noise[..., c], (0, 0), 2.5) for c in range(128)], -1)
    return np.clip(60 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def test_energy_equals_its_definition() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (5, 6, 16)).astype(np.uint8)
    b = rng.integers(0, 256, (6, 5, 16)).astype(np.uint8)
    flow = rng.integers(-3, 4, (5, 6, 2)).astype(np.float32)
    mask_a, mask_b = rng.random((5, 6)) > 0.2, rng.random((6, 5)) > 0.2
    # Displacement and smoothness count from where the pixel's place in the area of A is in the area of B.
    y, x = np.mgrid[:5, :6]
    stretch = np.stack([(x + 0.5) * 5 / 6 - 0.5 - x, (y + 0.5) * 6 / 5 - 0.5 - y], -1)
    relative = flow - np.floor(stretch + 0.5)
    total = 0.0
    for y in range(5):
        for x in range(6):
            u, v = flow[y, x].astype(int)
            total += 1.275 * np.abs(relative[y, x]).sum()
            for yn, xn in ((y, x + 1), (y + 1, x)):
                if yn < 5 and xn < 6:
                    total += np.minimum(510 * np.abs(relative[y, x] - relative[yn, xn]), 900).sum()
            if not mask_a[y, x]:
                continue
            inside = 0 <= y + v < 6 and 0 <= x + u < 5 and mask_b[y + v, x + u]
            total += np.abs(a[y, x].astype(int) - b[y + v, x + u]).sum() if inside else 777
    settings = SiftFlowSettings(d=900)
    got = flow_energy(flow, a, b, settings=settings, mask_a=mask_a, mask_b=mask_b, default_cost=777)
    assert got == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize(("name", "settings"), [("mars256_tpami", TPAMI), ("st2_scalemaps", SCALEMAPS)])
def test_energy_is_not_above_the_reference(shared_data: Path, name: str, settings: SiftFlowSettings) -> None:
    data = np.load(shared_data / "reference" / f"{name}.npz")
    meta = json.loads(str(data["L1_meta"]))
    a, b = data["sift1"], data["sift2"]
    theirs = flow_energy(
        data["flow"].astype(np.float32), a, b, settings=settings, default_cost=meta["default"]
    )
    # Our energy of their flow is what their program printed.
    assert theirs == pytest.approx(data["L1_energy"][-1], rel=1e-4)
    result = sift_flow(a, b, settings=settings)
    ours = flow_energy(result.flow, a, b, settings=settings, default_cost=meta["default"])
    assert ours <= theirs
    assert result.energy <= theirs
    repeated = flow_energy(result.flow, a, b, settings=settings, default_cost=result.default_cost)
    assert result.energy == pytest.approx(repeated)


@pytest.mark.parametrize(
    ("name", "radii"), [("mars256_tpami", (2, 3, 4, 10)), ("st2_scalemaps", (5, 6, 7, 20))]
)
def test_the_cost_outside_is_that_of_the_release(
    shared_data: Path, name: str, radii: tuple[int, ...]
) -> None:
    """At every level, in its own windows; it rounds down to a twenty thousandth of the range of costs."""
    data = np.load(shared_data / "reference" / f"{name}.npz")
    for level, radius in enumerate(radii, 1):
        prefix = "" if level == 1 else f"L{level}_"
        a, b = data[f"{prefix}sift1"], data[f"{prefix}sift2"]
        centre = np.stack([data[f"L{level}_offx"], data[f"L{level}_offy"]]).astype(np.int32)
        everywhere = (np.ones(one.shape[:2], bool) for one in (a, b))
        _, found = data_costs(a, b, *everywhere, centre, radius)
        assert found == pytest.approx(json.loads(str(data[f"L{level}_meta"]))["default"], abs=1)


def test_pyramid_agrees_with_the_reference(shared_data: Path) -> None:
    data = np.load(shared_data / "reference" / "mars256_tpami.npz")
    difference = halve_descriptors(data["sift1"]).astype(int) - data["L2_sift1"]
    assert np.abs(difference[2:-2, 2:-2]).max() <= 2
    assert np.abs(difference).mean() < 0.5


def test_halving_an_odd_size_rounds_up_and_keeps_a_constant() -> None:
    out = halve_descriptors(np.full((7, 5, 128), 83, np.uint8))
    assert out.shape == (4, 3, 128)
    assert (out == 83).all()


@pytest.mark.parametrize("shift", [(0, 0), (9, -6), (-14, 3)])
def test_a_translation_is_found_exactly(shift: tuple[int, int]) -> None:
    dx, dy = shift
    whole = descriptors(96, 112)
    a, b = whole[16:80, 16:96], whole[16 - dy : 80 - dy, 16 - dx : 96 - dx]
    flow = sift_flow(a, b).flow
    np.testing.assert_array_equal(
        flow[16:-16, 16:-16], np.broadcast_to(np.float32(shift), flow.shape)[16:-16, 16:-16]
    )


def test_images_of_different_sizes() -> None:
    whole = descriptors(64, 96)
    b = whole[6:54, 10:90]
    result = sift_flow(whole, b)
    assert result.flow.shape == (64, 96, 2)
    inner = result.flow[16:48, 24:80]
    assert (inner == (-10, -6)).all(-1).mean() > 0.98


def test_a_resized_copy_costs_nothing() -> None:
    """Displacement and smoothness count from the map of one area onto the other, so a plain region follows it too."""
    b = descriptors(40, 48)
    b[:, 30:] = 90  # nothing to see in the last 18 columns
    a = np.ascontiguousarray(b.repeat(2, axis=0).repeat(2, axis=1))
    y, x = np.mgrid[:80, :96]
    result = sift_flow(a, b)
    np.testing.assert_array_equal(result.flow, np.stack([x // 2 - x, y // 2 - y], -1))
    assert result.energy == 0
    back = sift_flow(b, a).flow
    y, x = np.mgrid[:40, :48]
    # Either of the two pixels that show the same is right.
    assert np.abs(back - np.stack([x + 0.5, y + 0.5], -1)).max() == 0.5


def test_masked_pixels_have_no_say() -> None:
    whole = descriptors(64, 80)
    a = whole.copy()
    a[20:40, 30:60] = descriptors(20, 30, seed=9)
    mask = np.ones((64, 80), bool)
    mask[20:40, 30:60] = False
    flow = sift_flow(a, whole, mask_a=mask).flow
    # Without data the neighbours' flow spreads into the hole.
    assert not flow[20:40, 30:60].any()
    one = sift_flow(a, whole, mask_a=mask, mask_b=mask)
    assert np.isfinite(one.energy)
    nothing = sift_flow(a, whole, mask_a=np.zeros_like(mask))
    assert not nothing.flow.any()


def test_an_initial_flow_takes_the_place_of_the_coarse_levels() -> None:
    whole = descriptors(96, 160)
    a, b = whole[:, :80], whole[:, 40:120]
    # 40 px are out of reach of two pixels around zero, but not around a start that is nearly right.
    start = np.zeros((96, 80, 2), np.float32)
    start[..., 0] = -39
    flow = sift_flow(a, b, initial=start).flow
    assert (flow[:, 50:] == (-40, 0)).all(-1).mean() > 0.95
    assert len(sift_flow(a, b, initial=start).level_energies) == 1


def test_threads_change_nothing() -> None:
    a, b = descriptors(48, 56), descriptors(48, 56, seed=1)
    np.testing.assert_array_equal(sift_flow(a, b).flow, sift_flow(a, b, threads=2).flow)


def test_polishing_never_raises_the_energy() -> None:
    a, b = descriptors(48, 56), descriptors(48, 56, seed=1)
    energies = [sift_flow(a, b, settings=SiftFlowSettings(polish=n)).energy for n in (0, 1, 3)]
    assert energies[2] <= energies[1] <= energies[0]


def test_costs_beyond_the_message_range_are_scaled() -> None:
    whole = descriptors(64, 80)
    a, b = whole[:, 8:], whole[:, :-8]
    # d ten times larger: the same answer where the data are clear.
    flow = sift_flow(a, b, settings=SiftFlowSettings(d=102000)).flow
    assert (flow[8:-8, 8:-16] == (8, 0)).all(-1).mean() > 0.98


def test_wrong_shapes_are_refused() -> None:
    a = descriptors(16, 16)
    with pytest.raises(UsageError, match="channels"):
        sift_flow(a, a[..., :64])
    with pytest.raises(UsageError, match="mask"):
        sift_flow(a, a, mask_a=np.ones((4, 4), bool))
    with pytest.raises(UsageError, match="initial"):
        sift_flow(a, a, initial=np.zeros((4, 4, 2), np.float32))
