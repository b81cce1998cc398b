"""Three tiny stages that stand for a real run: numbers from a file, their squares, the sum."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from recon.engine.recipe import Recipe, load_recipe
from recon.engine.runner import RunOptions, RunSummary, run_stages
from recon.engine.stage import StageContext

KILL_AT = "FAKE_STAGES_KILL_AT"
"""Environment: the process kills itself when it reaches this point."""


def point(name: str) -> None:
    """A place where a test may kill the process, as hard as kill -9 does."""
    if os.environ.get(KILL_AT) == name:
        os.kill(os.getpid(), signal.SIGKILL)


class NumbersStage:
    """Reads numbers from the user's file and keeps the first ones."""

    name = "numbers"
    version = 1
    reads: tuple[str, ...] = ()

    class Settings(BaseModel):
        count: int = Field(6, ge=1, le=100)

    def inputs_fingerprint(self, work: StageContext) -> str:
        return hashlib.sha256(Path(work.inputs["numbers"]).read_bytes()).hexdigest()

    def run(self, settings: Any, work: StageContext) -> dict[str, Any]:
        point("numbers-begin")
        numbers = [int(text) for text in Path(work.inputs["numbers"]).read_text().split()][: settings.count]
        with work.writing("numbers.json") as path:
            path.write_text(json.dumps(numbers)[:3])
            point("numbers-half-written")
            path.write_text(json.dumps(numbers))
        point("numbers-written")
        return {"numbers": len(numbers)}


class SquaresStage:
    """One file per number, in a directory that a killed run leaves to be resumed."""

    name = "squares"
    version = 1
    reads = ("numbers",)

    class Settings(BaseModel):
        power: int = Field(2, ge=1, le=5)
        resumable: bool = True

    def run(self, settings: Any, work: StageContext) -> dict[str, Any]:
        numbers = json.loads(work.path("numbers.json").read_text())
        directory = work.resumable_directory if settings.resumable else work.fresh_directory
        made = []
        with directory("squares") as folder:

            def square(number: int) -> None:
                if (folder / f"{number}.txt").exists():
                    return
                with work.write_into(folder, f"{number}.txt") as path:
                    path.write_text("half")
                    point(f"squares-half-{number}")
                    path.write_text(str(number**settings.power))
                made.append(number)
                point(f"squares-after-{number}")

            work.map(square, numbers, "squaring", threads=1)
            point("squares-all")
        point("squares-swapped")
        return {"squares": len(numbers), "made": len(made)}


class SumStage:
    """The sum of all squares."""

    name = "sum"
    version = 1
    reads = ("squares",)

    class Settings(BaseModel):
        offset: float = 0.0

    def run(self, settings: Any, work: StageContext) -> dict[str, Any]:
        point("sum-begin")
        total = sum(int(path.read_text()) for path in work.path("squares").iterdir()) + settings.offset
        work.write_json("sum.json", {"sum": total})
        point("sum-written")
        return {"sum": total}


STAGES = (NumbersStage(), SquaresStage(), SumStage())


def recipe(folder: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of the fake run."""
    path = folder / "fake.toml"
    if not path.exists():
        path.write_text('name = "fake"\n[numbers]\ncount = 6\n')
    return load_recipe(path, STAGES, "normal", overrides)


def run(folder: Path, overrides: Sequence[str] = (), out: str = "out", **options: Any) -> RunSummary:
    """A fake run in ``folder/out`` over ``folder/numbers.txt``."""
    numbers = options.pop("numbers", folder / "numbers.txt")
    inputs = {"numbers": str(numbers)}
    choice = RunOptions(inputs=inputs, source=str(numbers), threads=2, **options)
    return run_stages(STAGES, recipe(folder, overrides), folder / out, choice)


def results(out: Path) -> dict[str, str]:
    """Every result file of a workspace by its name; not those that hold times: manifest, log, lock."""
    skip = {"manifest.json", "run.log", ".lock"}
    return {
        path.relative_to(out).as_posix(): path.read_text()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in skip
    }


if __name__ == "__main__":
    run(Path(sys.argv[1]), tuple(sys.argv[2:]))
