"""kill -9 in every stage of the real pipeline: the same command goes on, loses nothing and ends the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recon.api import stages

ROOT = Path(__file__).resolve().parents[2]
SIGKILL = -9

STAGES = tuple(stage.name for stage in stages())

SMALL = (
    "photos.max_size=160",
    "match.max_size=160",
    "verify.samples=500",
    "tracks.max_anchors=300",
    "map.one_thread=true",  # the same model bit for bit
    "depth.iterations=1",
    "depth.levels=1",
    "depth.neighbours=2",
    "mesh.depth=6",
    "report.width=160",
)
"""Four photos of 160 px from end to end in a few seconds."""

RUN_ONLY = {".lock", "manifest.json", "run.log", "summary.json", "summary.txt"}
"""Files that hold timings; the figures in them are compared without those."""


@dataclass
class Killer:
    """The command line in processes that end themselves where they are told to."""

    server: subprocess.Popen[str]
    folder: Path
    photos: Path
    cameras: Path

    def run(self, out: Path, kill: tuple[str, int | str] | None = None) -> tuple[int, dict[str, int], str]:
        """Exit code, events per stage, and what this run printed."""
        log = self.folder / "log.txt"
        log.unlink(missing_ok=True)
        argv = ["reconstruct", str(self.photos), "--out", str(out), "--quality", "preview", "--threads", "1"]
        argv += ["--intrinsics", str(self.cameras)]
        argv += [word for setting in SMALL for word in ("--set", setting)]
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(
            json.dumps({"argv": argv, "root": str(out), "kill": kill, "log": str(log)}) + "\n"
        )
        self.server.stdin.flush()
        answer = json.loads(self.server.stdout.readline())
        text = log.read_text()
        assert "Traceback" not in text, text
        return answer["code"], answer["events"], text


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    from recon.datasets.synthetic import make_scene, write_scene

    folder = tmp_path_factory.mktemp("kill")
    write_scene(make_scene("demo", size=(240, 180), coarseness=2.0), folder / "scene")
    for photo in sorted((folder / "scene" / "images").iterdir())[4:]:
        photo.unlink()
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("kill_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as server:
        yield Killer(server, folder, folder / "scene" / "images", folder / "scene" / "cameras.json")
        assert server.stdin is not None
        server.stdin.close()


@dataclass
class Unbroken:
    """A run that nothing disturbed, and how many events each stage had in it."""

    out: Path
    events: dict[str, int]


@pytest.fixture(scope="module")
def unbroken(killer: Killer) -> Unbroken:
    out = killer.folder / "unbroken"
    code, events, text = killer.run(out)
    assert code == 0, text
    assert set(events) == set(STAGES)
    return Unbroken(out, events)


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a workspace that an unbroken run leaves, but for those that hold timings."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in RUN_ONLY
    }


def stamps(out: Path, record: dict[str, Any]) -> dict[Path, int]:
    """When the files that a stage wrote were last changed."""
    tops = [out / name for name in record["written"]]
    files = [path for top in tops for path in ([top] if top.is_file() else top.rglob("*"))]
    return {path: path.stat().st_mtime_ns for path in files}


def figures(out: Path) -> dict[str, Any]:
    """The summary without the costs."""
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    for key in ("seconds", "peak_memory_mb", "run"):
        del summary[key]
    for stage in summary["stages"]:
        for key in ("seconds", "cpu_seconds", "peak_memory_mb"):
            del stage[key]
    return summary


def manifest_stages(out: Path) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((out / "manifest.json").read_text())["stages"]
    return recorded


@pytest.mark.parametrize("place", ["middle", "written"])
def test_killed_in_every_stage_resumes_to_the_unbroken_result(
    killer: Killer, unbroken: Unbroken, place: str
) -> None:
    """One workspace, killed once in every stage, each time resumed by the same command.

    The places: after half of the traces that a stage leaves in the workspace; with all its files in place but the
    manifest not yet written.
    """
    out = killer.folder / place
    before: dict[Path, int] = {}
    for number, stage in enumerate(STAGES):
        point: int | str = (unbroken.events[stage] + 1) // 2 if place == "middle" else place
        code, events, text = killer.run(out, (stage, point))
        assert code == SIGKILL, f"{stage}: {text}"
        recorded = manifest_stages(out)
        assert {name: recorded[name]["state"] for name in recorded} == {
            **dict.fromkeys(STAGES[:number], "done"),
            stage: "running",
        }
        # What was finished before this run was not touched by it, and not even begun again.
        assert set(events) <= set(STAGES[max(0, number - 1) : number + 1])
        assert before == {path: path.stat().st_mtime_ns for path in before}
        before = {
            path: stamp for name in STAGES[:number] for path, stamp in stamps(out, recorded[name]).items()
        }
    code, events, text = killer.run(out)
    assert code == 0, text
    assert set(events) == {STAGES[-1]}
    assert before == {path: path.stat().st_mtime_ns for path in before}
    expected, found = contents(unbroken.out), contents(out)
    assert set(found) == set(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert figures(out) == figures(unbroken.out)
    assert not any((out / ".incomplete").iterdir())


@pytest.mark.parametrize("stage", ["match", "depth"])
def test_long_stages_keep_the_parts_that_were_done_when_killed(
    killer: Killer, unbroken: Unbroken, stage: str
) -> None:
    """The resumed stage leaves fewer traces than a whole one, and the parts it kept are the very same files."""
    out = killer.folder / f"parts-{stage}"
    assert killer.run(out, (stage, unbroken.events[stage] * 2 // 3))[0] == SIGKILL
    (partial,) = (out / ".incomplete").glob(f"*.{stage}.*.partial")
    kept = {path.name: path.stat().st_ino for path in partial.iterdir() if not path.name.startswith(".")}
    assert len(kept) >= 3
    following = STAGES[STAGES.index(stage) + 1]
    code, events, _ = killer.run(out, (following, 1))
    assert code == SIGKILL
    assert events[stage] < unbroken.events[stage] * 2 // 3
    target = out / manifest_stages(out)[stage]["written"][0]
    final = {path.name: path.stat().st_ino for path in target.iterdir()}
    if stage == "match":
        assert {name: final[name] for name in kept} == kept
    expected = contents(unbroken.out)
    for name, data in contents(out).items():
        assert data == expected[name], name
