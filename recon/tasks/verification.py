"""Two-view geometry of single pairs and loops of flow, as tasks on the workspace, and what an earlier run found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from recon.core.memory import Latest
from recon.engine.stage import StageContext
from recon.graph.evidence import PairSigns
from recon.graph.loops import Loop
from recon.graph.pair_verification import VerificationOptions, verify_dense_pair, verify_sparse_pair
from recon.graph.types import TwoViewGeometry, ViewGraph
from recon.graph.view_graph import PairEvidence, flow_loop_error, three_view_loops
from recon.io.files import parse_json
from recon.matching.types import SparseMatch
from recon.run.folder import RunFolder
from recon.run.kept import read_keys
from recon.run.matches import FLOWS, MATCHES, DenseMatches, Pair
from recon.run.shared_fields import content_key

KEPT_EVIDENCE = "pair_evidence.json"
"""What was found of every pair, by the key of all that it depends on."""

KEPT_LOOPS = "flow_loops.json"
"""The error of every three-view loop of flow, null where it says nothing, by the keys of its matches."""

_open = Latest()


@dataclass(frozen=True)
class VerifyPair:
    """The geometry and the signs of a pair from its matches and the sparse first look.

    Attributes:
        root: the workspace.
        token: of this run of the stage.
    """

    root: Path
    options: VerificationOptions
    token: str

    def __call__(self, pair: Pair) -> PairEvidence:
        return _open.get(self, lambda: _Verifier(self)).verify(pair)

    def lost(self, _: Pair) -> PairEvidence:
        """A pair that ended its worker each time has no geometry."""
        return PairEvidence(TwoViewGeometry("none", None, None, np.zeros(0, bool)), 0)

    def close(self) -> None:
        """Free what tasks of this process hold."""
        _open.clear()


@dataclass(frozen=True)
class FlowLoop:
    """The miss of the flow chained round three photos; None where too few pixels come round.

    Attributes:
        root: the workspace.
        token: of this run of the stage.
    """

    root: Path
    token: str

    def __call__(self, loop: Loop) -> float | None:
        matches: DenseMatches = _open.get(self, lambda: _matches(RunFolder(self.root)))
        a, b, c = loop
        ab, bc, ac = matches[a, b], matches[b, c], matches[a, c]
        return flow_loop_error(
            [(ab.a_to_b, ab.consistent_a), (bc.a_to_b, bc.consistent_a), (ac.b_to_a, ac.consistent_b)]
        )

    def lost(self, _: Loop) -> None:
        """A loop that ended its worker each time says nothing."""

    def close(self) -> None:
        """Free what tasks of this process hold."""
        _open.clear()


def _matches(run: RunFolder) -> DenseMatches:
    return run.dense_matches(run.matching.pairs)


class _Verifier:
    """An opened run."""

    def __init__(self, task: VerifyPair) -> None:
        self.run, self.options = RunFolder(task.root), task.options
        self.dense = self.run.matching.kind == "dense"
        self.matches = _matches(self.run)
        self.looks = self.run.sparse_matches() if self.dense else {}

    def verify(self, pair: Pair) -> PairEvidence:
        photos, cameras = self.run.photo_set.photos, self.run.photo_set.cameras
        both = cameras[photos[pair[0]].camera], cameras[photos[pair[1]].camera]
        if not self.dense:
            return verify_sparse_pair(self.run.sparse_match(pair), both, self.options)
        points = [self.run.points(number).xy for number in pair]
        look = self.looks.get(pair)
        seen = None
        if look is not None:
            ones = np.ones(len(look), np.float32)
            seen = SparseMatch(points[0][look[:, 0]], points[1][look[:, 1]], ones)
        return verify_dense_pair(self.matches[pair], seen, min(map(len, points)), both, self.options)


def verify_pairs(
    run: RunFolder, pairs: Sequence[Pair], options: VerificationOptions, version: int, work: StageContext
) -> tuple[dict[Pair, PairEvidence], int]:
    """The evidence of every pair, and for how many it was that of an earlier run.

    Args:
        version: of the stage; what another version found is not taken over.
    """
    keys = _evidence_keys(run, pairs, options, version)
    before = _read_evidence(run) if work.reuse else {}
    known = {pair: before[key] for pair, key in keys.items() if key in before}
    fresh = [pair for pair in pairs if pair not in known]
    with closing(VerifyPair(work.root, options, uuid4().hex)) as task:
        made = dict(zip(fresh, work.spread(task, fresh, "two-view geometry", task.lost), strict=True))
    found = {pair: known[pair] if pair in known else made[pair] for pair in pairs}
    work.write_text(
        KEPT_EVIDENCE, _evidence_text({keys[pair]: found[pair] for pair in pairs if pair in keys})
    )
    return found, len(known)


def flow_loops(
    run: RunFolder, graph: ViewGraph, found: Mapping[Pair, PairEvidence], version: int, work: StageContext
) -> dict[Loop, float]:
    """The errors of the three-view loops whose pairs all have flow to go by; what an earlier run knew is taken over."""
    loops = [
        (a, b, c)
        for a, b, c in three_view_loops(graph)
        if not any(found[pair].by_points for pair in ((a, b), (b, c), (a, c)))
    ]
    keys = _loop_keys(run, loops, version)
    before = _read_loops(run) if work.reuse else {}
    fresh = [loop for loop in loops if keys.get(loop) not in before]
    with closing(FlowLoop(work.root, uuid4().hex)) as task:
        made = dict(zip(fresh, work.spread(task, fresh, "loops of flow", task.lost), strict=True))
    errors = {loop: made[loop] if loop in made else before[keys[loop]] for loop in loops}
    work.write_json(KEPT_LOOPS, {keys[loop]: error for loop, error in errors.items() if loop in keys})
    return {loop: error for loop, error in errors.items() if error is not None}


def _evidence_keys(
    run: RunFolder, pairs: Sequence[Pair], options: VerificationOptions, version: int
) -> dict[Pair, str]:
    """Hash of all that the evidence of each pair depends on; pairs whose match has no key are left out."""
    dense = run.matching.kind == "dense"
    made = read_keys(run.path(FLOWS if dense else MATCHES))
    photos, cameras = run.photo_set.photos, run.photo_set.cameras
    looks = run.sparse_matches()
    found = {}
    for pair in pairs:
        match = made.get(run.match_path(pair, dense=dense).name)
        if match is not None:
            identity = {
                "version": version,
                "options": asdict(options),
                "match": match,
                "points": [run.points_key(number) for number in pair],
                "cameras": [asdict(cameras[photos[number].camera]) for number in pair],
            }
            found[pair] = content_key(identity, [looks.get(pair)])
    return found


def _read_evidence(run: RunFolder) -> dict[str, PairEvidence]:
    """Read what an earlier run found, by key; empty where it left nothing that can be read."""
    try:
        stored = parse_json(run.path(KEPT_EVIDENCE).read_text(encoding="utf-8"))
        return {key: _evidence(one) for key, one in stored.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _loop_keys(run: RunFolder, loops: Sequence[Loop], version: int) -> dict[Loop, str]:
    """Hash of all that the error of each loop of flow depends on; loops with a match without a key are left out."""
    made = read_keys(run.path(FLOWS))
    found = {}
    for a, b, c in loops:
        legs = [made.get(run.match_path(pair, dense=True).name) for pair in ((a, b), (b, c), (a, c))]
        if None not in legs:
            found[a, b, c] = content_key({"version": version, "flows": legs})
    return found


def _read_loops(run: RunFolder) -> dict[str, float | None]:
    """Read what an earlier run found of loops, by key; empty where it left nothing that can be read."""
    try:
        stored = parse_json(run.path(KEPT_LOOPS).read_text(encoding="utf-8"))
        return {key: None if error is None else float(error) for key, error in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _evidence_text(found: Mapping[str, PairEvidence]) -> str:
    """The text of ``KEPT_EVIDENCE``."""
    return json.dumps({key: _stored(one) for key, one in found.items()}, indent=0) + "\n"


def _stored(one: PairEvidence) -> dict[str, Any]:
    geometry = one.geometry
    return {
        "model": geometry.model,
        "matrix": _array(geometry.matrix),
        "b_from_a": _array(geometry.b_from_a),
        "inliers": [len(geometry.inliers), np.packbits(geometry.inliers).tobytes().hex()],
        "triangulation_angle": float(geometry.triangulation_angle),
        "other_b_from_a": _array(geometry.other_b_from_a),
        "matches": int(one.matches),
        "consistent": float(one.consistent),
        "signs": None if one.signs is None else {k: _number(v) for k, v in asdict(one.signs).items()},
        "chance": float(one.chance),
        "by_points": bool(one.by_points),
    }


def _array(values: np.ndarray | None) -> Any:
    """Rows, and the order in memory: it is part of the bytes of an .npz file."""
    return None if values is None else [values.tolist(), "C" if values.flags.c_contiguous else "F"]


def _matrix(stored: Any) -> np.ndarray | None:
    """What ``_array`` stored."""
    return None if stored is None else np.array(stored[0], np.float64, order=stored[1])


def _number(value: Any) -> int | float:
    return int(value) if isinstance(value, (int, np.integer)) else float(value)


def _evidence(stored: Mapping[str, Any]) -> PairEvidence:
    count, bits = stored["inliers"]
    inliers = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=count).astype(bool)
    matrix, pose, other = (_matrix(stored[key]) for key in ("matrix", "b_from_a", "other_b_from_a"))
    signs = stored["signs"]
    return PairEvidence(
        TwoViewGeometry(stored["model"], matrix, pose, inliers, stored["triangulation_angle"], other),
        stored["matches"],
        stored["consistent"],
        None if signs is None else PairSigns(**signs),
        stored["chance"],
        stored["by_points"],
    )
