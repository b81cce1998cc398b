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

RUN_ONLY = {".lock", "manifest.json", "run.log", "summary.txt", "report.html"}


@dataclass
class Killer:
    """The command line in processes that end themselves where they are told to."""

    server: subprocess.Popen[str]
    folder: Path
    photos: Path
    cameras: Path

    def run(
        self, out: Path, kill: tuple[str, int | str] | None = None, full: tuple[str, int] | None = None
    ) -> tuple[int, dict[str, int], str]:
        """Exit code, events per stage, and what this run printed."""
        argv = ["reconstruct", str(self.photos), "--out", str(out), "--quality", "preview", "--threads", "1"]
        argv += ["--intrinsics", str(self.cameras)]
        argv += [word for setting in SMALL for word in ("--set", setting)]
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        job = {"argv": argv, "root": str(out), "kill": kill, "full": full}
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        answer = json.loads(self.server.stdout.readline())
        assert "Traceback" not in answer["text"], answer["text"]
        return answer["code"], answer["events"], answer["text"]


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    from recon.synthetic.files import write_scene
    from recon.synthetic.presets import make_scene

    folder = tmp_path_factory.mktemp("kill")
    write_scene(make_scene("demo", size=(240, 180), coarseness=2.0), folder / "scene")
    for photo in sorted((folder / "scene" / "images").iterdir())[4:]:
        photo.unlink()
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "support" / "kill_server.py")],
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


def without_timings(value: Any) -> Any:
    """JSON values without every key that tells a cost."""
    if isinstance(value, dict):
        return {
            key: without_timings(one)
            for key, one in value.items()
            if "seconds" not in key and key != "peak_memory_mb"
        }
    return [without_timings(one) for one in value] if isinstance(value, list) else value


def contents(out: Path) -> dict[str, Any]:
    """Every file of a workspace but for those of the run itself: JSON without timings, anything else as bytes."""
    return {
        path.relative_to(out).as_posix(): (
            without_timings(json.loads(path.read_text()))
            if path.suffix == ".json" or path.name == ".zattrs"  # zarr 2, of Python 3.10
            else path.read_bytes()
        )
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in RUN_ONLY
    }


def stamps(out: Path, record: dict[str, Any]) -> dict[Path, int]:
    """When the files that a stage wrote were last changed."""
    tops = [out / name for name in record["written"]]
    files = [path for top in tops for path in ([top] if top.is_file() else top.rglob("*"))]
    return {path: path.stat().st_mtime_ns for path in files}


def manifest_stages(out: Path) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((out / "manifest.json").read_text())["stages"]
    return recorded


def test_every_stage_survives_a_full_disk_and_kills(killer: Killer, unbroken: Unbroken) -> None:
    """One workspace. In every stage in turn: the disk is full; it is killed after half of the traces that it leaves
    in the workspace; it is killed with all its files in place but the manifest not yet written. Each time the same
    command goes on, and the end is that of the unbroken run.
    """
    out = killer.folder / "out"
    of_unbroken = manifest_stages(unbroken.out)
    for number, stage in enumerate(STAGES):
        done = dict.fromkeys(STAGES[:number], "done")

        # No room for the largest file of the stage.
        sizes = [path.stat().st_size for path in stamps(unbroken.out, of_unbroken[stage]) if path.is_file()]
        code, _, text = killer.run(out, full=(stage, max(sizes) // 2))
        assert code == 1, f"{stage}: {text}"
        assert "no room to write" in text, f"{stage}: {text}"
        assert str(out) in text
        assert "free some space and run the same command again" in text
        states = {name: record["state"] for name, record in manifest_stages(out).items()}
        assert states.pop(stage) in {"failed", "running"}  # there may be no room for the manifest either
        assert states == done
        finished = {
            path: stamp
            for name in STAGES[:number]
            for path, stamp in stamps(out, manifest_stages(out)[name]).items()
        }

        # Half done. What was finished before is not even begun again.
        code, events, text = killer.run(out, kill=(stage, (unbroken.events[stage] + 1) // 2))
        assert (code, set(events)) == (SIGKILL, {stage}), f"{stage}: {text}"
        parts = parts_done(out, stage)
        assert parts or stage not in {"match", "depth"}

        # All done, but not written down. A long stage has kept the parts that it had.
        code, events, text = killer.run(out, kill=(stage, "written"))
        assert (code, set(events)) == (SIGKILL, {stage}), f"{stage}: {text}"
        if parts:
            assert events[stage] < unbroken.events[stage]
            # Depth and mesh put theirs together into other files.
            joined = stage in {"depth", "mesh"}
            assert joined or set(parts.values()) <= {path.stat().st_ino for path in out.rglob("*")}
        assert finished == {path: path.stat().st_mtime_ns for path in finished}
        states = {name: record["state"] for name, record in manifest_stages(out).items()}
        assert states == {**done, stage: "running"}

    code, events, text = killer.run(out)
    assert (code, set(events)) == (0, {STAGES[-1]}), text
    expected, found = contents(unbroken.out), contents(out)
    assert set(found) == set(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not any((out / ".incomplete").iterdir())


def parts_done(out: Path, stage: str) -> dict[str, int]:
    """The complete parts of a stage that was killed, with their inode numbers."""
    return {
        path.name: path.stat().st_ino
        for folder in (out / ".incomplete").glob(f"*.{stage}.*.partial")
        for path in folder.iterdir()
        if not path.name.startswith(".")
    }
