"""Does any file that people feed it break the command line? Damaged inputs and workspaces by the thousand.

    python benchmarks/hostile.py --runs 1000 --seed 0
    python benchmarks/hostile.py --runs 1000 --seed 0 --keep cases.jsonl   # can be stopped, and goes on from there
    python benchmarks/hostile.py --seed 0 --only photos --case 17   # one case again, with what it printed

One small run is made first (four rendered photos), and exported to every format. Then each case takes a good file,
spoils it (bytes flipped, cut, emptied, swapped with another file's, sizes in headers made huge, values of JSON and TOML
replaced, archives that unpack to gigabytes, names, EXIF and ICC garbage), and gives it to the command that reads it, in
a process forked from one that has recon imported. A case fails if the command

- ends by an exception that nobody caught, by a signal, or with another exit code than 0, 1 or 2;
- takes more than ``LIMIT_S`` seconds, or more than ``LIMIT_MB`` of memory;
- writes, changes or removes anything outside of its output folder, or leaves a temporary file behind;
- fails without naming the file that was spoiled, or passes over a photo without a word.

Prints a table by kind of file, and what fell short with the command that repeats it. Exit status 1 if anything did.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostile_cases import KINDS, Case, make_base

os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "NUMBA", "OPENBLAS", "MKL")})

LIMIT_S, LIMIT_MB = 90.0, 4096


@dataclass
class Ended:
    """How a command ended."""

    code: int
    text: str
    seconds: float
    cpu: float
    peak_mb: float
    faults: list[str] = field(default_factory=list)


def warm() -> None:
    """Import all that commands import, so that a forked case does not."""
    import _common  # noqa: F401  (makes recon found)

    import recon.cli
    from recon.api import stages

    stages()
    for name in (
        "cli.app", "compare.running", "evaluation.kinds", "evaluation.scene", "exports.exporting", "exports.importing",
        "exports.georeferencing", "live.viewer", "live.serving", "maps.making", "matching.siftflow_matcher",
        "render.rendering", "report.gather", "report.page", "io.textured_mesh", "photos.films", "sfm.mapping",
    ):  # fmt: skip
        __import__(f"recon.{name}")
    for name in ("zarr", "trimesh", "viser", "rasterio", "rawpy", "pillow_heif", "xatlas", "PIL.Image"):
        with contextlib.suppress(ImportError):
            __import__(name)
    from PIL import Image

    Image.init()
    recon.cli.main(["--version"])


def _child(case: Case, output: int, folder: Path) -> int:
    """Run the command as its users do, but for a viewer that ends once it has started."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(TMPDIR=str(folder / "tmp"), HOME=str(folder / "home"))
    tempfile.tempdir = None
    os.chdir(folder / "cwd")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import recon.cli.view

    class Ends:
        class Event:
            def wait(self) -> None:
                raise KeyboardInterrupt

    recon.cli.view.threading = Ends  # type: ignore[attr-defined]
    from recon.cli import main

    code = main(case.argv)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def execute(case: Case, folder: Path) -> Ended:
    """Run one case in a forked process; it is killed beyond the limits."""
    for name in ("tmp", "home", "cwd"):
        (folder / name).mkdir(exist_ok=True)
    before = _listing(folder, case.out)
    log = folder.with_suffix(".log")
    sys.stdout.flush()
    sys.stderr.flush()
    output = os.open(log, os.O_CREAT | os.O_RDWR | os.O_TRUNC)
    began = time.perf_counter()
    process = os.fork()
    if process == 0:
        code = 70
        try:
            os.setsid()
            code = _child(case, output, folder)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(output)
    status, usage, killed = _wait(process, began)
    seconds = time.perf_counter() - began
    text = log.read_text(encoding="utf-8", errors="replace")
    code = os.waitstatus_to_exitcode(status)
    ended = Ended(code, text, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    ended.faults = list(_faults(case, ended, killed))
    after = _listing(folder, case.out)
    outside = sorted(
        str(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )
    if outside:
        ended.faults.append(f"changed outside OUT: {', '.join(outside[:3])}")
    log.unlink()
    return ended


def _wait(process: int, began: float) -> tuple[int, Any, str]:
    """Wait for a process; it is killed when it takes too long or too much."""
    page, killed = os.sysconf("SC_PAGE_SIZE"), ""
    while True:
        done, status, usage = os.wait4(process, os.WNOHANG)
        if done:
            return status, usage, killed
        with contextlib.suppress(OSError, ValueError, IndexError):
            resident = int(Path(f"/proc/{process}/statm").read_text().split()[1]) * page
            if resident > LIMIT_MB * 2**20:
                killed = f"more than {LIMIT_MB} MB of memory"
        if time.perf_counter() - began > LIMIT_S:
            killed = f"more than {LIMIT_S:.0f} s"
        if killed:
            with contextlib.suppress(OSError):
                os.killpg(process, signal.SIGKILL)
        time.sleep(0.01)


def _faults(case: Case, ended: Ended, killed: str) -> Any:
    """What is wrong with how a command ended."""
    if killed:
        yield killed
        return
    if ended.peak_mb > LIMIT_MB:
        yield f"{ended.peak_mb:.0f} MB of memory"
    if "Traceback (most recent call last)" in ended.text:
        yield f"traceback: {_last_line(ended.text)}"
    elif ended.code not in (0, 1, 2):
        yield f"exit code {ended.code}: {_last_line(ended.text)}"
    flat = _squeezed(ended.text)
    told = [name for name in case.named if _squeezed(name) in flat]
    if ended.code in (1, 2) and not told and "Traceback" not in ended.text:
        yield f"message does not name {' or '.join(map(repr, case.named))}: {_last_line(ended.text)}"
    if ended.code == 0:
        stored = case.out / "photos.json"
        known = flat + (_squeezed(stored.read_text(errors="replace")) if stored.is_file() else "")
        for name in case.accounted:
            if _squeezed(name) not in known:
                yield f"not a word of {name!r}"


def _squeezed(text: str) -> str:
    """A text without what printing adds: escapes, quotes, breaks of lines."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return re.sub(r"\\u[0-9a-f]{4}|\\x[0-9a-f]{2}|\\[nrt]|[^\w.+-]|�", "", text, flags=re.ASCII)


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "(nothing was printed)"


def _listing(folder: Path, out: Path) -> dict[str, tuple[int, int]]:
    """Every file but for those below ``out`` and the caches of libraries: size and time of the last change."""
    found = {}
    for place, folders, names in os.walk(folder):
        if Path(place) in (out, folder / "home" / ".cache"):
            folders[:] = []
            continue
        for name in names:
            path = os.path.join(place, name)
            if path != str(out):
                state = os.lstat(path)
                found[os.path.relpath(path, folder)] = (state.st_size, state.st_mtime_ns)
    return found


def run_case(kind: str, number: int, seed: int, base: Path, place: Path) -> tuple[Case, Ended]:
    """Make a case anew and run it; its folder goes afterwards."""
    folder = place / f"{kind}-{number}"
    folder.mkdir()
    rng = random.Random(f"{seed}/{kind}/{number}")
    try:
        case = KINDS[kind].make(rng, base, folder)
        return case, execute(case, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def numbers(runs: int, kinds: dict[str, Any]) -> list[tuple[str, int]]:
    """So many cases, shared out over the kinds by their weights."""
    total = sum(kind.weight for kind in kinds.values())
    counts = {name: max(1, round(runs * kind.weight / total)) for name, kind in kinds.items()}
    return [(name, number) for name, count in counts.items() for number in range(count)]


def main() -> int:
    """Run the cases; 1 if one fell short."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=sorted(KINDS), help="these kinds only")
    parser.add_argument("--case", type=int, help="this number of the kind only, with all that it printed")
    parser.add_argument("--base", type=Path, help="keep the small run here, and use it the next time")
    parser.add_argument(
        "--keep", type=Path, help="file of what became of each case; what is in it is not run again"
    )
    options = parser.parse_args()
    from _common import Cases, table

    kinds = {name: kind for name, kind in KINDS.items() if not options.only or name in options.only}
    cases = numbers(options.runs, kinds)
    if options.case is not None:
        cases = [(name, options.case) for name in kinds]
    kept = Cases(options.keep if options.case is None else None, options.seed)
    with tempfile.TemporaryDirectory(prefix="hostile-") as temporary:
        place = Path(temporary)
        base = options.base or place / "base"
        make_base(base)
        warm()
        gc.freeze()
        for kind, number in cases:
            if f"{kind} {number}" in kept.done:
                continue
            case, ended = run_case(kind, number, options.seed, base, place)
            if options.case is not None:
                print(f"$ recon {' '.join(case.argv)}\n# {case.what}\n{ended.text}")
                print(f"exit code {ended.code}, {ended.cpu:.2f} CPU s")
            kept.add(
                f"{kind} {number}",
                kind=kind,
                cpu=ended.cpu,
                peak_mb=ended.peak_mb,
                fault="; ".join(ended.faults).replace(str(place), "…"),
                what=case.what.replace(str(place), "…"),
            )
            if ended.faults:
                print(f"{kind} {number}: {'; '.join(ended.faults)[:300]}", file=sys.stderr, flush=True)
    ended_cases = [kept.done[f"{kind} {number}"] for kind, number in cases]
    for (kind, number), one in zip(cases, ended_cases, strict=True):
        if one["fault"]:
            again = f"--seed {options.seed} --only {kind} --case {number}"
            print(f"{again}: {one['what']}\n    {one['fault']}", flush=True)
    groups = {name: [one for one in ended_cases if one["kind"] == name] for name in kinds}
    rows = [
        [
            name,
            len(group),
            sum(bool(one["fault"]) for one in group),
            round(sum(one["cpu"] for one in group) / len(group), 2),
            round(max(one["cpu"] for one in group), 1),
            round(max(one["peak_mb"] for one in group)),
        ]
        for name, group in {**groups, "**all**": ended_cases}.items()
    ]
    print("\n" + table(rows, ["kind", "runs", "failures", "CPU s each", "most", "peak MB"]))
    return 1 if any(one["fault"] for one in ended_cases) else 0


if __name__ == "__main__":
    sys.exit(main())
