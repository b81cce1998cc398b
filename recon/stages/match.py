"""Stage ``match``: a dense correspondence field, both ways, for every chosen pair."""

from __future__ import annotations

import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr
from pydantic import BaseModel, ConfigDict, Field, create_model

from recon.engine.stage import StageContext
from recon.matching.registry import create_matcher, matcher_settings
from recon.matching.turns import turn_back, turn_image, turns_of_seeds
from recon.matching.types import DenseMatch, FlowField, MatchImage, PairContext
from recon.photos.resize import resize_mask, resize_rgb
from recon.photos.types import Photo
from recon.stages.features import load_points
from recon.stages.pairs import load_pairs, load_sparse_matches
from recon.stages.photos import load_mask, load_photo_set, load_rgb

Pair = tuple[int, int]

FLOWS = "flows.zarr"

FLOW_STEP = 1 / 32
"""Flow on disk is a whole number of these (pixels): the error is at most 1/64 px, the range 1024 px."""

_PREPARED_IN_MEMORY = 12
"""Prepared images kept at once; the pairs are ordered so that most of their uses fall together."""


class MatchSettings(BaseModel):
    """Which matcher runs, at which size; every other key of the section is a setting of that matcher."""

    model_config = ConfigDict(extra="forbid")
    matcher: str = Field("siftflow", description="name in the registry of matchers")
    max_size: int = Field(640, ge=64, le=8192, description="longest side of the images that are matched")

    turn_upright: bool = Field(
        True,
        description="turn the second photo by quarter turns where the sparse matches say that it is turned",
    )

    @classmethod
    def variant(cls, table: Mapping[str, Any]) -> type[BaseModel]:
        """These settings together with those of the matcher that the section names."""
        name = str(table.get("matcher", cls.model_fields["matcher"].default))
        return create_model("MatchSettings", __base__=(cls, matcher_settings(name)))

    def of_matcher(self) -> dict[str, Any]:
        """The settings that belong to the matcher."""
        return self.model_dump(exclude=set(MatchSettings.model_fields))


class MatchStage:
    """Runs the matcher over the pairs, threads over pairs, each result written as soon as it is there."""

    name: ClassVar[str] = "match"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("photos", "features", "pairs")
    Settings: ClassVar[type[BaseModel]] = MatchSettings

    def run(self, settings: MatchSettings, work: StageContext) -> dict[str, Any]:
        photos = load_photo_set(work).photos
        pairs = load_pairs(work)
        seeds = load_sparse_matches(work)
        matcher = create_matcher(settings.matcher, **settings.of_matcher())
        if matcher.capabilities.kind != "dense":
            raise TypeError(f"matcher {settings.matcher!r} is {matcher.capabilities.kind}, not dense")

        def prepare(photo: int, turns: int) -> Any:
            return matcher.prepare(turn_image(match_image(work, photos[photo], settings.max_size), turns))

        cache = _PreparedCache(prepare)
        with work.resumable_directory(FLOWS) as store:
            for unfinished in store.glob(".*.partial"):
                shutil.rmtree(unfinished)
            zarr.open_group(str(store), mode="a")

            def match(pair: Pair) -> tuple[float, float]:
                done = store / f"{pair[0]}_{pair[1]}"
                if not done.exists():
                    found = seeds.get(pair)
                    turns = 0
                    if settings.turn_upright:
                        turns = turns_of_seeds(load_points(work, pair[0]), load_points(work, pair[1]), found)
                    result = matcher.match(
                        cache.get((pair[0], 0)), cache.get((pair[1], turns)), PairContext(seeds=found)
                    )
                    assert isinstance(result, DenseMatch)
                    write_dense_match(done, turn_back(result, turns))
                attributes = zarr.open_group(str(done), mode="r").attrs
                return float(attributes["consistent_share_a"]), float(attributes["consistent_share_b"])

            shares = work.map(match, pairs, "dense matching")
        return {
            "pairs": len(pairs),
            "matcher": settings.matcher,
            "consistent_share_median": float(np.median(shares)) if shares else 0.0,
        }


def match_image(work: StageContext, photo: Photo, max_size: int) -> MatchImage:
    """One photo at matching size, with its mask and interest points at that size."""
    width, height = matching_size(photo, max_size)
    mask = load_mask(work, photo)
    return MatchImage(
        rgb=resize_rgb(load_rgb(work, photo), width, height),
        mask=None if mask is None else resize_mask(mask, width, height),
        points=load_points(work, photo.id).at_size(width / photo.width, height / photo.height),
    )


def matching_size(photo: Photo, max_size: int) -> tuple[int, int]:
    """Width and height of a photo at matching size; photos are never enlarged."""
    factor = min(1.0, max_size / max(photo.width, photo.height))
    return max(1, round(photo.width * factor)), max(1, round(photo.height * factor))


class _PreparedCache:
    """The matcher's per-image work, done once per image while it is in reach; safe for threads."""

    def __init__(self, prepare: Callable[[int, int], Any]) -> None:
        self._prepare = prepare
        self._lock = threading.Lock()
        self._locks: dict[tuple[int, int], threading.Lock] = {}
        self._items: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def get(self, index: tuple[int, int]) -> Any:
        """The prepared image of a photo (first number) after so many quarter turns (second)."""
        with self._lock:
            own = self._locks.setdefault(index, threading.Lock())
        with own:
            with self._lock:
                if index in self._items:
                    self._items.move_to_end(index)
                    return self._items[index]
            prepared = self._prepare(*index)
            with self._lock:
                self._items[index] = prepared
                while len(self._items) > _PREPARED_IN_MEMORY:
                    self._items.popitem(last=False)
            return prepared


def write_dense_match(path: Path, match: DenseMatch) -> None:
    """Writes both directions of a pair as one Zarr group, beside its place and then renamed into it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    if beside.exists():
        shutil.rmtree(beside)
    group = zarr.open_group(str(beside), mode="w")
    for side, field, consistent in (
        ("a", match.a_to_b, match.consistent_a),
        ("b", match.b_to_a, match.consistent_b),
    ):
        steps = np.clip(np.rint(field.flow / FLOW_STEP), -32768, 32767).astype(np.int16)
        confidence = np.rint(np.clip(field.confidence, 0, 1) * 255).astype(np.uint8)
        for name, values in (("flow", steps), ("confidence", confidence), ("consistent", consistent)):
            array = zarr.open_array(
                str(beside / f"{name}_{side}"),
                mode="w",
                shape=values.shape,
                chunks=values.shape,
                dtype=values.dtype,
            )
            array[...] = values
        group.attrs[f"consistent_share_{side}"] = float(consistent.mean())
    os.replace(beside, path)


def load_dense_match(work: StageContext, pair: Pair) -> DenseMatch:
    """Both directions of a pair, as the stage left them (flow to within 1/64 px)."""
    path = work.path(FLOWS, f"{pair[0]}_{pair[1]}")

    def read(name: str) -> Any:
        return zarr.open_array(str(path / name), mode="r")[...]

    def field(side: str) -> FlowField:
        flow = read(f"flow_{side}").astype(np.float32) * np.float32(FLOW_STEP)
        return FlowField(flow, read(f"confidence_{side}").astype(np.float32) / np.float32(255))

    return DenseMatch(
        field("a"), field("b"), read("consistent_a").astype(bool), read("consistent_b").astype(bool)
    )


class DenseMatches(Mapping[Pair, DenseMatch]):
    """The dense matches of some pairs, read from the workspace when asked for; the last ones stay in memory."""

    def __init__(self, work: StageContext, pairs: Iterable[Pair], in_memory: int = 64) -> None:
        self._pairs = tuple(pairs)
        self._read = lru_cache(maxsize=in_memory)(lambda pair: load_dense_match(work, pair))

    def __getitem__(self, pair: Pair) -> DenseMatch:
        if pair not in self._pairs:
            raise KeyError(pair)
        return self._read(pair)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)
