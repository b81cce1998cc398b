"""Size and shape of the code: lines by room, lengths of stages, the longest functions, and those with most arguments.

    python benchmarks/structure.py [--code CHECKOUT] [--most 5]

Arguments are counted without ``self`` and ``cls``. Kernels are functions that numba compiles.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from _common import table

LIMITS = {False: (80, 10), True: (120, 15)}
"""Lines and arguments that a function, and a kernel, should stay within."""


@dataclass(frozen=True)
class Function:
    """A function or a method."""

    place: str
    lines: int
    arguments: int
    kernel: bool


def functions_of(path: Path, root: Path) -> list[Function]:
    """The functions of a file, nested ones too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        a = node.args
        names = [one.arg for one in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
        count = (
            len(names) - (names[:1] in (["self"], ["cls"])) + (a.vararg is not None) + (a.kwarg is not None)
        )
        kernel = any("njit" in ast.unparse(one) for one in node.decorator_list)
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        found.append(Function(f"{path.relative_to(root)} {node.name}", lines, count, kernel))
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--code", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--most", type=int, default=5, help="functions listed of each kind")
    options = parser.parse_args()
    root = options.code / "recon"
    files = {path: path.read_text(encoding="utf-8").count("\n") for path in sorted(root.rglob("*.py"))}
    rooms: Counter[str] = Counter()
    for path, lines in files.items():
        inside = path.relative_to(root).parts
        rooms[inside[0] if len(inside) > 1 else "(files)"] += lines
    print(table([*rooms.items(), ("in all", sum(rooms.values()))], ["room", "lines"]))
    stages = {path.stem: lines for path, lines in files.items() if path.parent.name == "stages" and lines > 1}
    print("\n" + table(sorted(stages.items(), key=lambda one: -one[1]), ["stage", "lines"]))
    functions = [one for path in files for one in functions_of(path, root)]
    for kernel, limits in LIMITS.items():
        kind = "kernels" if kernel else "functions"
        mine = [one for one in functions if one.kernel == kernel]
        for name, limit in zip(("lines", "arguments"), limits, strict=True):
            mine.sort(key=attrgetter(name), reverse=True)
            over = sum(attrgetter(name)(one) > limit for one in mine)
            print(f"\n{over} {kind} over {limit} {name}")
            rows = [(one.place, one.lines, one.arguments) for one in mine[: options.most]]
            print(table(rows, [kind, "lines", "arguments"]))


if __name__ == "__main__":
    main()
