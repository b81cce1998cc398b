"""Matchers by name: the built-in ones, those of installed packages, and those that a program registers."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from recon.errors import UsageError
from recon.matching.types import Capabilities, Matcher, MatchImage

ENTRY_POINT_GROUP = "recon.matchers"
"""A package offers a matcher of its own by an entry point of this group: its name, and its class."""


@dataclass(frozen=True)
class BuiltIn:
    """Place and capabilities of a built-in matcher (known without importing it)."""

    target: str
    capabilities: Capabilities


def _dense(place: str, notes: str, **further: Any) -> BuiltIn:
    return BuiltIn(f"recon.matching.{place}", Capabilities(kind="dense", notes=notes, **further))


def _sparse(place: str, notes: str, **further: Any) -> BuiltIn:
    return BuiltIn(f"recon.matching.{place}", Capabilities(kind="sparse", notes=notes, **further))


_POINTS = {"uses_interest_points": True}
_SEEDS = {"uses_interest_points": True, "uses_seeds": True}
_DEVICES = {"devices": ("cpu", "cuda")}

BUILT_IN: dict[str, BuiltIn] = {
    "siftflow": _dense(
        "siftflow_matcher:SiftFlowMatcher",
        "SIFT Flow on descriptors at propagated scales, sub-pixel refined",
        **_SEEDS,
    ),
    "dsift-flow": _dense(
        "siftflow_matcher:FixedScaleMatcher", "SIFT Flow on dense SIFT of one scale, without propagation"
    ),
    "sls": _dense(
        "sls_matcher:ScalelessSiftMatcher",
        "SIFT Flow on Scale-less SIFT, a subspace of descriptors over scales",
    ),
    "dis": _dense("opencv_matchers:DisMatcher", "OpenCV's DIS optical flow: fast, for small motion"),
    "farneback": _dense(
        "opencv_matchers:FarnebackMatcher", "OpenCV's Farneback optical flow: for small motion"
    ),
    "dhpf": _dense(
        "hyperpixel_matcher:DhpfMatcher",
        "Dynamic Hyperpixel Flow: semantic correspondence, layers chosen per pair",
        **_DEVICES,
    ),
    "hpf": _dense(
        "hyperpixel_matcher:HpfMatcher",
        "Hyperpixel Flow: semantic correspondence, fixed layers",
        **_DEVICES,
    ),
    "dhpf-siftflow": _dense(
        "hyperpixel_matcher:DhpfSiftFlowMatcher",
        "SIFT Flow that starts from Dynamic Hyperpixel Flow",
        **_SEEDS,
        **_DEVICES,
    ),
    "sift": _sparse("sift_matcher:SiftMatcher", "pycolmap's SIFT, mutual ratio test", **_POINTS),
    "aliked+lightglue": _sparse(
        "learned:AlikedLightGlueMatcher", "ALIKED points matched by LightGlue, through kornia"
    ),
    "disk+lightglue": _sparse(
        "learned:DiskLightGlueMatcher", "DISK points matched by LightGlue, through kornia"
    ),
    "xfeat": _sparse("learned:XFeatMatcher", "XFeat points, mutual nearest neighbours, through kornia"),
    "xfeat+lighterglue": _sparse(
        "learned:XFeatLighterGlueMatcher", "XFeat points matched by LighterGlue, through kornia"
    ),
    "xfeat-star": _sparse(
        "learned:XFeatStarMatcher", "XFeat's semi-dense matches, through kornia", repeatable=False
    ),
}

_Class = TypeVar("_Class", bound=type[Any])


def built_in(name: str) -> Callable[[_Class], _Class]:
    """Give a built-in matcher's class the name and the capabilities that ``BUILT_IN`` states."""

    def named(matcher: _Class) -> _Class:
        matcher.name, matcher.capabilities = name, BUILT_IN[name].capabilities
        return matcher

    return named


FAMILIES: dict[str, str] = {"vismatch": "recon.matching.vismatch_adapter:vismatch_matcher"}
"""Collections whose matchers are named ``FAMILY:NAME``: a function from the name to the class."""

registered: dict[str, tuple[type[Any], type[Any]]] = {}
"""By name: the class as it was registered, and completed."""


def register(matcher: type[Any]) -> type[Any]:
    """Add a matcher class under its ``name``; usable as a class decorator.

    The class needs ``name`` and the method ``match``; what else the contract has is filled in (``complete``).

    Raises:
        UsageError: the name is taken, or the class lacks a part of the contract.
    """
    name = getattr(matcher, "name", None)
    if not isinstance(name, str) or not name:
        raise UsageError(f"{matcher.__name__} is not a matcher: it has no name")
    if name in BUILT_IN or name.partition(":")[0] in FAMILIES:
        raise UsageError(f"a matcher named {name!r} exists already; choose another name")
    if registered.get(name, (matcher,))[0] is not matcher:
        raise UsageError(f"a matcher named {name!r} exists already; choose another name")
    registered[name] = (matcher, complete(matcher, name))
    return matcher


class NoSettings(BaseModel):
    """The settings of a matcher that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Completed:
    """The parts of the contract that a class with nothing but ``match`` lacks."""

    capabilities = Capabilities(kind="sparse")
    Settings: type[BaseModel] = NoSettings

    def prepare(self, image: MatchImage) -> Any:
        """The image itself: nothing is prepared."""
        return image


def complete(matcher: type[Any], name: str) -> type[Any]:
    """Complete a matcher's class with what it may leave out: by default it is sparse, without settings or preparation.

    A class with ``Settings`` (a pydantic model) is created as ``cls(settings)``, one without as ``cls()``.

    Raises:
        UsageError: the class has no method ``match``, or a part of the contract of another kind.
    """
    if not isinstance(matcher, type) or not callable(getattr(matcher, "match", None)):
        raise UsageError(f"matcher {name!r}: {matcher!r} is not a class with a method 'match'")
    capabilities = getattr(matcher, "capabilities", _Completed.capabilities)
    if not isinstance(capabilities, Capabilities):
        raise UsageError(f"matcher {name!r}: capabilities is {capabilities!r}, not a Capabilities")
    settings = getattr(matcher, "Settings", None)
    if settings is not None and not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        raise UsageError(f"matcher {name!r}: Settings is {settings!r}, not a pydantic model")
    parts: dict[str, Any] = {"name": name, "__doc__": matcher.__doc__, "__module__": matcher.__module__}
    if settings is None:
        try:
            inspect.signature(matcher).bind()
        except TypeError as error:
            raise UsageError(
                f"matcher {name!r}: its constructor takes arguments ({error}), but the class has no Settings"
            ) from error

        def create(self: Any, _settings: BaseModel) -> None:
            matcher.__init__(self)

        parts["__init__"] = create
    whole: type[Any] = type(matcher.__name__, (matcher, _Completed), parts)
    return whole


def available_matchers() -> dict[str, Capabilities]:
    """List the capabilities of every matcher that has a name of its own. Imports no built-in matcher.

    A package whose matcher cannot be imported is left out; ``create_matcher`` says why.
    """
    found = {name: entry.capabilities for name, entry in BUILT_IN.items()}
    for name in _installed():
        try:
            found.setdefault(name, _matcher_class(name).capabilities)
        except UsageError:
            continue
    found.update({name: cls.capabilities for name, (_, cls) in registered.items()})
    return dict(sorted(found.items()))


def matcher_settings(name: str) -> type[BaseModel]:
    """Return the settings model of a matcher.

    Raises:
        UsageError: no matcher has that name.
    """
    settings: type[BaseModel] = _matcher_class(name).Settings
    return settings


def create_matcher(name: str, **settings: Any) -> Matcher:
    """Create a matcher with these settings.

    Raises:
        UsageError: no matcher has that name, or it does not take such settings.
    """
    cls = _matcher_class(name)
    try:
        resolved = cls.Settings(**settings)
    except ValidationError as error:
        known = ", ".join(cls.Settings.model_fields)
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"matcher {name!r}: {problems} (its settings: {known})") from error
    matcher: Matcher = cls(resolved)
    return matcher


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _matcher_class(name: str) -> type[Any]:
    if name in registered:
        return registered[name][1]
    if name in BUILT_IN:
        return _imported(BUILT_IN[name].target)
    family, colon, member = name.partition(":")
    if colon and family in FAMILIES:
        matcher: type[Any] = _imported(FAMILIES[family])(member)
        return matcher
    installed: dict[str, Any] = _installed()
    if name in installed:
        try:
            found = installed[name].load()
        except Exception as error:
            raise UsageError(
                f"matcher {name!r} is offered by an installed package but cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
        return complete(found, name)
    names = sorted({*BUILT_IN, *registered, *installed})
    close = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    collections = ", ".join(f"{one}:NAME" for one in FAMILIES)
    raise UsageError(f"no matcher is named {name!r}{hint} Known: {', '.join(names)}, {collections}")


def _imported(target: str) -> Any:
    module, attribute = target.split(":")
    return getattr(import_module(module), attribute)
