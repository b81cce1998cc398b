"""Runs the real command line in forked children, each of which may be told to kill itself in the middle of a stage.

Reads one job a line (JSON) from standard input: ``argv`` for ``recon.cli.main``, ``root`` of the workspace, ``kill``
(None, or the name of a stage and a point), ``full`` (None, or the name of a stage and the size in bytes beyond which
no file can grow while it runs, as on a full disk). Answers each with one line: how the child ended, what it printed
and how many events each stage had. An event is anything by which a stage leaves its trace in the
workspace (a file opened for writing, a rename, a folder made, a file removed), seen by Python's audit hooks, or a step
of progress, which is how COLMAP's own loops are reached. The kill comes before the event takes effect.

A child is forked after the imports and before any thread was started, so that a kill costs no start of Python.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import traceback
from typing import Any

import recon.api
import recon.cli
import recon.engine.stage

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Killer:
    """Counts the events of each stage; ends the process by SIGKILL at the wanted one."""

    def __init__(self, root: str, kill: list[Any] | None, full: list[Any] | None, report: int) -> None:
        self.root = root
        self.stage, self.point = kill or ("", None)
        self.full_stage, self.largest = full or ("", None)
        self.current = ""
        self.counts: dict[str, int] = {}
        self.lock = threading.Lock()
        self.report = report

    def die(self) -> None:
        self.tell()
        os.kill(os.getpid(), signal.SIGKILL)

    def tell(self) -> None:
        os.write(self.report, json.dumps(self.counts).encode())

    def event(self) -> None:
        with self.lock:
            if not self.current:
                return
            self.counts[self.current] = self.counts.get(self.current, 0) + 1
            if self.current == self.stage and self.counts[self.current] == self.point:
                self.die()

    def audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITES:
                return
        elif name in {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}:
            path = arguments[0]
        else:
            return
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(self.root):
            self.event()

    def watch(self) -> None:
        """Follow the stages from here on."""
        for stage in recon.api.stages():
            self._wrap(type(stage))
        update = recon.engine.stage.Progress.update

        def counted(progress: Any, n: int = 1) -> None:
            self.event()
            update(progress, n)

        recon.engine.stage.Progress.update = counted  # type: ignore[method-assign]
        sys.addaudithook(self.audit)

    def _wrap(self, kind: Any) -> None:
        run = kind.run

        def watched(stage: Any, settings: Any, work: Any) -> Any:
            self.current = stage.name
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            if stage.name == self.full_stage:
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest, before[1]))
            try:
                result = run(stage, settings, work)
            finally:
                self.current = ""
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            if self.stage == stage.name and self.point == "written":
                self.die()  # all its files are in place, and the manifest doesn't know yet
            return result

        kind.run = watched


def child(job: dict[str, Any], output: int, report: int) -> int:
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    killer = Killer(job["root"], job["kill"], job["full"], report)
    killer.watch()
    code = recon.cli.main(job["argv"])
    killer.tell()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def main() -> None:
    recon.api.stages()
    for line in sys.stdin:
        # Pipes, because the limit on the size of files holds for the output too.
        output, report = os.pipe(), os.pipe()
        process = os.fork()
        if process == 0:
            os.close(output[0])
            os.close(report[0])
            code = 70
            try:
                code = child(json.loads(line), output[1], report[1])
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(output[1])
        os.close(report[1])
        with os.fdopen(output[0], "rb") as stream:
            text = stream.read().decode(errors="replace")
        with os.fdopen(report[0], "rb") as stream:
            counts = stream.read()
        _, status = os.waitpid(process, 0)
        answer = {
            "code": os.waitstatus_to_exitcode(status),
            "events": json.loads(counts or b"{}"),
            "text": text,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
