"""Does a run that is killed at any instant end as if nothing had happened?

    python benchmarks/kill.py --runs 200 --seed 0
    python benchmarks/kill.py --runs 200 --seed 0 --keep cases.jsonl   # can be stopped, and goes on from there

A small run (four rendered photos) is made once, undisturbed, and its workspace is kept as it was when each stage began.
Then, for every stage in turn, a process forked from one that has recon imported goes on from there, and it is sent
SIGKILL, with all its children, at a random instant: after a share of the time that the stage took in the undisturbed
run, from 0 to 1.2 (so that some kills hit the end of the stage, the manifest, or the next stage). The same command is
then given again. A run fails if that does not end with exit code 0, prints a traceback, leaves anything half-built, or
if any file of the workspace differs from the undisturbed run's: JSON without its timings, everything else byte by byte.
Lock, log, manifest and the two pages that tell times are compared only in being there.

Prints a table by stage, and what fell short. Exit status 1 if anything did.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile import warm
from hostile_cases import make_base, reconstruct

_TELLS_TIMES = {".lock", "manifest.json", "run.log", "summary.txt", "report.html"}
_LONGEST_S = 300.0
"""Of a resumed run on a busy machine."""


@dataclass
class Process:
    """A forked run: its process, what it printed, and when each stage began."""

    number: int
    log: Path
    stages: int

    @classmethod
    def start(cls, argv: list[str], log: Path, keep: Path | None = None, out: Path | None = None) -> Process:
        """Fork, and run the command there.

        Args:
            keep: where the workspace ``out`` is copied to before each stage, below the stage's name.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        ours, theirs = os.pipe()
        number = os.fork()
        if number:
            os.close(theirs)
            return cls(number, log, ours)
        code = 70
        try:
            os.setsid()
            output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            _tell_stages(theirs, keep, out)
            from recon.cli import main as command

            code = command(argv)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def begun(self) -> str:
        """Wait for the next stage to begin; its name, empty at the end."""
        name = b""
        while not name.endswith(b"\n"):
            part = os.read(self.stages, 1)
            if not part:
                return ""
            name += part
        return name.decode().strip()

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.number, signal.SIGKILL)

    def end(self, within: float = _LONGEST_S) -> tuple[int, float]:
        """Wait for the end: exit code and CPU seconds."""
        limit = time.perf_counter() + within
        while True:
            done, status, usage = os.wait4(self.number, os.WNOHANG)
            if done:
                os.close(self.stages)
                return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
            if time.perf_counter() > limit:
                self.kill()
            time.sleep(0.005)


def _tell_stages(pipe: int, keep: Path | None, out: Path | None) -> None:
    """Write the name of each stage that begins to a pipe."""
    from recon.api import stages

    for stage in stages():
        kind, run = type(stage), type(stage).run

        def told(self: Any, settings: Any, work: Any, run: Any = run) -> Any:
            if keep is not None and out is not None:
                shutil.copytree(out, keep / self.name, symlinks=True)
            os.write(pipe, f"{self.name}\n".encode())
            return run(self, settings, work)

        kind.run = told  # type: ignore[method-assign]


def without_timings(value: Any) -> Any:
    """JSON values without every key that tells a cost."""
    if isinstance(value, dict):
        told = (pair for pair in value.items() if "seconds" not in pair[0] and pair[0] != "peak_memory_mb")
        return {key: without_timings(one) for key, one in told}
    return [without_timings(one) for one in value] if isinstance(value, list) else value


def contents(out: Path) -> dict[str, Any]:
    """Every file of a workspace: JSON without timings, others as bytes; of files that tell times only the name."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_dir():
            continue
        if path.name in _TELLS_TIMES:
            found[name] = ""
        elif path.suffix == ".json" or path.name == ".zattrs":
            found[name] = without_timings(json.loads(path.read_text()))
        else:
            found[name] = path.read_bytes()
    return found


def differences(out: Path, expected: dict[str, Any]) -> list[str]:
    """What differs from the undisturbed run, in words."""
    found = contents(out)
    words = [f"{name} is missing" for name in expected if name not in found]
    words += [f"{name} is left over" for name in found if name not in expected]
    return words + [f"{name} differs" for name in expected if name in found and found[name] != expected[name]]


def main() -> int:
    """Kill and resume; 1 if a run fell short."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="this run only, with what it printed")
    parser.add_argument("--stages", nargs="*", help="kills in these stages only")
    parser.add_argument("--base", type=Path, help="the folder that hostile.py --base keeps")
    parser.add_argument(
        "--keep", type=Path, help="file of what became of each run; what is in it is not run again"
    )
    options = parser.parse_args()
    from _common import Cases, table

    with tempfile.TemporaryDirectory(prefix="kill-") as temporary:
        place = Path(temporary)
        base = options.base or place / "base"
        make_base(base)
        warm()
        gc.freeze()
        out, log, kept = place / "out", place / "run.log", place / "begun"
        argv = reconstruct(
            base / "scene" / "images", out, cameras=base / "scene" / "cameras.json", last="report"
        )
        seconds = undisturbed(argv, log, kept, out)
        expected = contents(out)
        names = [name for name in seconds if not options.stages or name in options.stages]
        kept_cases = Cases(options.keep if options.case is None else None, options.seed)
        numbers = range(options.runs) if options.case is None else [options.case]
        for number in numbers:
            stage = names[number % len(names)]
            delay = random.Random(f"{options.seed}/{number}").uniform(0, 1.2) * seconds[stage]
            if str(number) in kept_cases.done:
                continue
            shutil.rmtree(out)
            shutil.copytree(kept / stage, out, symlinks=True)
            faults, fell, spent = killed_and_resumed(argv, log, out, expected, delay)
            if options.case is not None:
                print(log.read_text())
            where = f"killed in {fell or 'nothing'}, {delay:.3f} s after {stage} began"
            fault = f"{where}: {'; '.join(faults[:6])}" if faults else ""
            kept_cases.add(str(number), stage=stage, fell=fell, cpu=spent, fault=fault)
            if fault:
                print(f"{number}: {fault}", file=sys.stderr, flush=True)
    done = [kept_cases.done[str(number)] for number in numbers]
    for one in done:
        if one["fault"]:
            print(f"--seed {options.seed} --case {one['case']}: {one['fault']}", flush=True)

    def row(name: str, group: list[dict[str, Any]], hit: int) -> list[Any]:
        mean = round(sum(one["cpu"] for one in group) / max(1, len(group)), 2)
        return [name, len(group), hit, sum(bool(one["fault"]) for one in group), mean]

    hits = Counter(one["fell"] for one in done)
    rows = [row(name, [one for one in done if one["stage"] == name], hits[name]) for name in seconds]
    rows.append(["after the end", "", hits[""], "", ""])
    rows.append(row("**all**", done, len(done)))
    print("\n" + table(rows, ["goes on from", "runs", "killed in it", "not identical", "CPU s each"]))
    return 1 if any(one["fault"] for one in done) else 0


def undisturbed(argv: list[str], log: Path, kept: Path, out: Path) -> dict[str, float]:
    """Run to the end twice, the second time from what the first kept: seconds of each stage, by name."""
    process = Process.start(argv, log, kept, out)
    began: list[tuple[str, float]] = []
    while name := process.begun():
        began.append((name, time.perf_counter()))
    ended = time.perf_counter()
    code, _ = process.end()
    if code != 0:
        raise SystemExit(f"the undisturbed run ends with {code}:\n{log.read_text()}")
    times = [*(moment for _, moment in began), ended]
    return {name: times[index + 1] - moment for index, (name, moment) in enumerate(began)}


def killed_and_resumed(
    argv: list[str], log: Path, out: Path, expected: dict[str, Any], delay: float
) -> tuple[list[str], str, float]:
    """Kill a run, give its command again: what is wrong then, the stage that was hit, and the CPU seconds."""
    process = Process.start(argv, log)
    process.begun()
    time.sleep(delay)
    process.kill()
    code, spent = process.end()
    fell = ""
    if code == -signal.SIGKILL:
        stored = json.loads((out / "manifest.json").read_text())["stages"]
        fell = next((name for name, record in stored.items() if record["state"] == "running"), "")
    process = Process.start(argv, log)
    code, more = process.end()
    text = log.read_text(errors="replace")
    faults = []
    if code != 0 or "Traceback" in text:
        faults.append(f"resumed, it ends with {code}: {(text.strip().splitlines() or ['nothing'])[-1][:200]}")
    else:
        faults += differences(out, expected)
    return faults, fell, spent + more


if __name__ == "__main__":
    sys.exit(main())
