"""A stage whose work is tasks that other processes can do, and tasks that end the process that does them."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from recon.engine.stage import StageContext
from recon.io.files import AtomicFolder


@dataclass(frozen=True)
class Square:
    """Writes the square of a number.

    Attributes:
        once: the first process that takes this number dies.
        always: every process that takes this number dies.
    """

    root: Path
    once: int = -1
    always: int = -1

    def __call__(self, number: int) -> int:
        files = AtomicFolder(self.root)
        mark = self.root / "died"
        if number == self.always or (number == self.once and not mark.exists()):
            if number == self.once:
                mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with files.writing("squares", f"{number}.txt") as path:
            path.write_text(str(number**2))
        return os.getpid()


class SpreadStage:
    """Squares of numbers, by tasks; counts the processes that did them."""

    name = "spread"
    version = 1
    reads: tuple[str, ...] = ()

    class Settings(BaseModel):
        numbers: int = 12
        once: int = -1
        always: int = -1

    def run(self, settings: Any, work: StageContext) -> dict[str, Any]:
        task = Square(work.root, settings.once, settings.always)
        found = work.spread(task, range(settings.numbers), "squaring", lambda _: 0)
        done = [number for number, process in enumerate(found) if process]
        work.write_json("done.json", done)
        return {"squares": len(done), "processes": len({*found} - {0}), "here": int(os.getpid() in found)}


def squares(root: Path) -> dict[str, str]:
    """What the stage left, by file."""
    files = {path.name: path.read_text() for path in sorted((root / "squares").iterdir())}
    return files | {"done": json.dumps(json.loads((root / "done.json").read_text()))}
