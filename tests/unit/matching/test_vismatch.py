"""The adapter against a small stand-in with the collection's interface (vismatch 1.4, ``vismatch/base_matcher.py``)."""

from __future__ import annotations

import os
import sys
import types
from typing import Any, ClassVar

import numpy as np
import pytest

from recon.errors import ReconError, UsageError
from recon.matching.registry import available_matchers, create_matcher, matcher_settings
from recon.matching.types import Capabilities, Matcher, MatchImage, SparseMatch
from tests.support.matcher_contract import MatcherContract, run_any, run_sparse, shifted, textured


class StandIn:
    """What ``vismatch.get_matcher`` returns: called with two (3, h, w) tensors in 0…1, gives a dictionary."""

    asked: ClassVar[list[tuple[Any, ...]]] = []
    confidence: ClassVar[bool] = True

    def __init__(self, name: str, device: str, max_num_keypoints: int) -> None:
        print("downloading things ...")
        StandIn.asked.append((name, device, max_num_keypoints, os.environ.get("HF_HUB_OFFLINE")))
        if name == "needs-weights":
            raise OSError("no weights in the cache")

    def __call__(self, img0: Any, img1: Any) -> dict[str, Any]:
        import torch

        assert img0.ndim == img1.ndim == 3
        assert img0.shape[0] == 3
        assert 0 <= float(img0.min()) <= float(img0.max()) <= 1
        h, w = (min(a, b) for a, b in zip(img0.shape[1:], img1.shape[1:], strict=True))
        # Samples, as some of the collection's matchers do.
        xy = (torch.rand(200, 2) * torch.tensor([w - 1, h - 1])).double().numpy()
        return {
            "num_inliers": 0,
            "H": None,
            "matched_kpts0": xy,
            "matched_kpts1": xy.copy(),
            "inlier_kpts0": xy[:0],
            "inlier_kpts1": xy[:0],
            "all_kpts0": xy,
            "all_kpts1": xy,
            "all_desc0": np.empty((0, 2)),
            "all_desc1": np.empty((0, 2)),
            "matched_confidences": torch.rand(200).numpy() if StandIn.confidence else None,
        }


@pytest.fixture(autouse=True)
def _collection(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("vismatch")
    module.available_models = ["stand-in", "needs-weights", "loftr"]  # type: ignore[attr-defined]
    module.get_matcher = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vismatch", module)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    StandIn.asked.clear()
    StandIn.confidence = True


class TestVismatch(MatcherContract):
    matcher = "vismatch:stand-in"

    @pytest.fixture
    def under_test(self) -> Matcher:
        return create_matcher(self.matcher)

    def test_is_declared(self, under_test: Matcher) -> None:
        assert isinstance(under_test.capabilities, Capabilities)
        assert under_test.capabilities.kind == "sparse"
        assert not under_test.capabilities.repeatable
        assert under_test.name == self.matcher
        for name, info in matcher_settings(self.matcher).model_fields.items():
            assert info.description, name


def test_what_it_gives_arrives_as_it_is() -> None:
    matcher = create_matcher("vismatch:stand-in", max_points=99)
    images = [MatchImage(textured(60, 80)), MatchImage(textured(50, 90))]
    match = run_sparse(matcher, *images)
    assert len(match.score) == 200
    assert match.xy_a.dtype == np.float32
    np.testing.assert_array_equal(match.xy_a, match.xy_b)
    assert StandIn.asked == [("stand-in", "cpu", 99, "1")]
    StandIn.confidence = False
    assert (run_sparse(matcher, *images).score == 1).all()


def test_masked_points_are_left_out() -> None:
    mask = np.ones((60, 80), bool)
    mask[:, :40] = False
    image = MatchImage(textured(60, 80))
    match = run_sparse(create_matcher("vismatch:stand-in"), image, MatchImage(image.rgb, mask=mask))
    assert 20 < len(match.score) < 180
    assert match.xy_b[:, 0].min() >= 39.5


def test_the_network_is_asked_only_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    create_matcher("vismatch:stand-in")
    create_matcher("vismatch:stand-in", download=True)
    assert [asked[3] for asked in StandIn.asked] == ["1", None]
    assert "HF_HUB_OFFLINE" not in os.environ
    assert capsys.readouterr().out == ""


def test_the_client_that_was_imported_before_is_kept_offline_too(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = types.ModuleType("huggingface_hub.constants")
    constants.HF_HUB_OFFLINE = False  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", constants)
    seen = []

    class Looking(StandIn):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            seen.append(constants.HF_HUB_OFFLINE)  # type: ignore[attr-defined]
            super().__init__(*args, **kwargs)

    sys.modules["vismatch"].get_matcher = Looking  # type: ignore[attr-defined]
    create_matcher("vismatch:loftr")
    assert seen == [True]
    assert constants.HF_HUB_OFFLINE is False  # type: ignore[attr-defined]


def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no matcher 'lofter'; it has: .*loftr"):
        create_matcher("vismatch:lofter")
    with pytest.raises(ReconError, match=r"vismatch:needs-weights.*no weights in the cache.*download=true"):
        create_matcher("vismatch:needs-weights")
    with pytest.raises(UsageError, match="vismatch:loftr"):
        create_matcher("vismatch:")
    monkeypatch.setitem(sys.modules, "vismatch", None)
    with pytest.raises(UsageError, match=r"recon-photogrammetry\[vismatch\]"):
        create_matcher("vismatch:loftr")
    with pytest.raises(UsageError, match=r"vismatch:NAME"):
        create_matcher("vismatsch:loftr")


def test_naming_a_member_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vismatch", None)
    assert "max_points" in matcher_settings("vismatch:anything").model_fields
    assert "siftflow" in available_matchers()


def test_garbage_does_not_pass() -> None:
    class Garbage(StandIn):
        def __call__(self, img0: Any, img1: Any) -> dict[str, Any]:
            return super().__call__(img0, img1) | {"matched_kpts0": np.full((200, 2), np.nan)}

    sys.modules["vismatch"].get_matcher = Garbage  # type: ignore[attr-defined]
    with pytest.raises(ReconError, match="not finite"):
        run_any(create_matcher("vismatch:loftr"), *shifted(3, 2))


def test_the_result_is_a_sparse_match() -> None:
    assert isinstance(run_any(create_matcher("vismatch:loftr"), *shifted(3, 2)), SparseMatch)
