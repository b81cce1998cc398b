from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pydantic import BaseModel

from recon.errors import UsageError
from recon.matching import registry
from recon.matching.opencv_like import DenseOpticalFlow
from recon.matching.registry import available_matchers, create_matcher, matcher_settings, register
from recon.matching.types import Capabilities, Matcher
from tests.support.matcher_contract import textured


def test_built_in_names() -> None:
    assert {"siftflow", "dsift-flow", "dis", "farneback"} <= set(available_matchers())
    for name in ("siftflow", "dsift-flow", "dis", "farneback"):
        assert isinstance(create_matcher(name), Matcher)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'siftflow'.*dsift-flow"):
        create_matcher("siftflo")
    with pytest.raises(UsageError, match="farneback"):
        matcher_settings("nothing-like-it")


def test_wrong_values_name_the_key() -> None:
    with pytest.raises(UsageError, match=r"window.*greater"):
        create_matcher("siftflow", window=-1)
    assert create_matcher("siftflow", window="5").settings.window == 5  # type: ignore[attr-defined]


def test_a_matcher_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "registered", {})

    class Settings(BaseModel):
        strength: int = 1

    class Mine:
        name = "mine"
        capabilities = Capabilities(kind="sparse")

        def __init__(self, settings: Settings) -> None:
            self.settings = settings

        def prepare(self, image):  # type: ignore[no-untyped-def]
            return image

        def match(self, *_):  # type: ignore[no-untyped-def]
            raise AssertionError

    with pytest.raises(UsageError, match="Settings"):
        register(Mine)
    Mine.Settings = Settings  # type: ignore[attr-defined]
    register(Mine)
    assert available_matchers()["mine"].kind == "sparse"
    assert create_matcher("mine", strength=3).settings.strength == 3  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="sparse"):
        DenseOpticalFlow("mine")
    assert register(Mine) is Mine

    class Thief(Mine):
        name = "siftflow"

    with pytest.raises(UsageError, match="exists already"):
        register(Thief)
    Thief.name = "vismatch:loftr"
    with pytest.raises(UsageError, match="exists already"):
        register(Thief)
    Thief.name = "mine"
    with pytest.raises(UsageError, match="exists already"):
        register(Thief)


def test_a_class_with_nothing_but_match_is_completed() -> None:
    class Least:
        def match(self, a, b, context):  # type: ignore[no-untyped-def]
            return a, b, context

    whole = registry.complete(Least, "least")
    matcher = whole(whole.Settings())
    assert isinstance(matcher, Matcher)
    assert (matcher.name, matcher.capabilities.kind) == ("least", "sparse")
    assert matcher.match(matcher.prepare("a"), matcher.prepare("b"), None) == ("a", "b", None)
    assert not hasattr(Least, "capabilities")
    with pytest.raises(ValueError, match="extra"):
        whole.Settings(something=1)

    class Empty:
        pass

    with pytest.raises(UsageError, match=r"no-match.*method 'match'"):
        registry.complete(Empty, "no-match")
    Least.capabilities = "dense"  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="not a Capabilities"):
        registry.complete(Least, "least")


def test_a_package_that_cannot_be_imported_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "broken"

        def load(self):  # type: ignore[no-untyped-def]
            raise ImportError("libmissing.so")

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])  # noqa: ARG005
    assert "siftflow" in available_matchers()
    with pytest.raises(UsageError, match=r"'broken'.*libmissing\.so"):
        create_matcher("broken")


def test_an_installed_package_offers_a_matcher(monkeypatch: pytest.MonkeyPatch) -> None:
    from recon.matching.opencv_matchers import DisMatcher

    class Point:
        name = "theirs"

        def load(self):  # type: ignore[no-untyped-def]
            return DisMatcher

    monkeypatch.setattr(
        registry, "entry_points", lambda group: [Point()] if group == "recon.matchers" else []
    )
    assert "theirs" in available_matchers()
    assert isinstance(create_matcher("theirs"), DisMatcher)


def test_listing_matchers_imports_nothing_heavy() -> None:
    code = (
        "import sys; from recon.matching.registry import available_matchers; available_matchers();"
        "print([m for m in ('numba', 'cv2', 'torch', 'pycolmap') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_opencv_like_class_follows_the_interface() -> None:
    whole = textured(128, 160)
    a, b = whole[16:112, 16:144], whole[19:115, 11:139]
    flow = DenseOpticalFlow("dsift-flow")
    result = flow.calc(a, b)
    assert result.shape == (96, 128, 2)
    assert result.dtype == np.float32
    assert np.median(np.abs(result[24:-24, 24:-24] - (5, -3))) < 0.1
    given = np.empty((96, 128, 2), np.float32)
    assert flow.calc(a, b, given) is given
    np.testing.assert_array_equal(given, result)
    gray = flow.calc(a[..., 0], b[..., :1])
    assert np.median(np.abs(gray[24:-24, 24:-24] - (5, -3))) < 0.1
    flow.collectGarbage()
    assert flow.getDefaultName() == "recon.dsift-flow"
    with pytest.raises(UsageError, match="float32"):
        flow.calc(a.astype(np.float32), b)
    with pytest.raises(UsageError, match="shape"):
        flow.calc(a[None], b)
