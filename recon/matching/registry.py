"""Matchers by name: the built-in ones, those of installed packages, and those that a program registers."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel, ValidationError

from recon.errors import UsageError
from recon.matching.types import Capabilities, Matcher

ENTRY_POINT_GROUP = "recon.matchers"
"""A package offers a matcher of its own by an entry point of this group that names its class."""


@dataclass(frozen=True)
class BuiltIn:
    """Where a built-in matcher lives and what it can do (known without importing it)."""

    target: str
    capabilities: Capabilities


BUILT_IN: dict[str, BuiltIn] = {
    "siftflow": BuiltIn(
        "recon.matching.siftflow_matcher:SiftFlowMatcher",
        Capabilities(
            kind="dense",
            uses_interest_points=True,
            uses_seeds=True,
            notes="SIFT Flow on descriptors at propagated scales, sub-pixel refined",
        ),
    ),
    "dsift-flow": BuiltIn(
        "recon.matching.siftflow_matcher:FixedScaleMatcher",
        Capabilities(kind="dense", notes="SIFT Flow on dense SIFT of one scale, without propagation"),
    ),
    "dis": BuiltIn(
        "recon.matching.opencv_matchers:DisMatcher",
        Capabilities(kind="dense", notes="OpenCV's DIS optical flow: fast, for small motion"),
    ),
    "farneback": BuiltIn(
        "recon.matching.opencv_matchers:FarnebackMatcher",
        Capabilities(kind="dense", notes="OpenCV's Farneback optical flow: for small motion"),
    ),
}

_registered: dict[str, type[Any]] = {}


def register(matcher: type[Any]) -> type[Any]:
    """Adds a matcher class under its ``name``; usable as a class decorator.

    The class has ``name``, ``capabilities``, ``Settings`` (a pydantic model), ``prepare`` and ``match``, and
    is created as ``cls(settings)``.

    Raises:
        UsageError: the name is taken, or the class lacks a part of the contract.
    """
    missing = [
        part
        for part in ("name", "capabilities", "Settings", "prepare", "match")
        if not hasattr(matcher, part)
    ]
    if missing:
        raise UsageError(f"{matcher.__name__} is not a matcher: it has no {', '.join(missing)}")
    if matcher.name in BUILT_IN or _registered.get(matcher.name, matcher) is not matcher:
        raise UsageError(f"a matcher named {matcher.name!r} exists already; choose another name")
    _registered[matcher.name] = matcher
    return matcher


def available_matchers() -> dict[str, Capabilities]:
    """Capabilities of every matcher that can be created, by name. Imports no built-in matcher."""
    found = {name: entry.capabilities for name, entry in BUILT_IN.items()}
    for name in _installed():
        found.setdefault(name, _matcher_class(name).capabilities)
    found.update({name: cls.capabilities for name, cls in _registered.items()})
    return dict(sorted(found.items()))


def matcher_settings(name: str) -> type[BaseModel]:
    """The settings model of a matcher.

    Raises:
        UsageError: no matcher has that name.
    """
    settings: type[BaseModel] = _matcher_class(name).Settings
    return settings


def create_matcher(name: str, **settings: Any) -> Matcher:
    """A matcher with these settings.

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
    if name in _registered:
        return _registered[name]
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name].target.split(":")
        found: type[Any] = getattr(import_module(module), attribute)
        return found
    installed: dict[str, Any] = _installed()
    load: Callable[[], type[Any]] | None = installed[name].load if name in installed else None
    if load is not None:
        return load()
    names = sorted({*BUILT_IN, *_registered, *installed})
    close = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"no matcher is named {name!r}{hint} Known: {', '.join(names)}")
