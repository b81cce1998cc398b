"""The process of one reconstruction: reads a job from its input, says on its output how it ended."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any


def main() -> int:
    """Run the job on the standard input; the last line of the standard output is a JSON object."""
    import recon.core.colmap  # noqa: F401  its logging takes SIGTERM: the handlers below come after it
    from recon.compare.running import Job
    from recon.engine.runner import InterruptedRunError
    from recon.errors import ReconError

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    # Those of pycolmap's logging allocate memory, so that a crash inside of malloc hangs instead of ending.
    for crash in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL):
        signal.signal(crash, signal.SIG_DFL)
    said: dict[str, Any] = {}
    # What libraries print belongs with the messages, not with the answer.
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        arguments = json.loads(sys.stdin.read())
        Job(**{**arguments, "overrides": tuple(arguments["overrides"])}).run()
    except (KeyboardInterrupt, InterruptedRunError):
        said = {"interrupted": True}
    except ReconError as error:
        said = {"error": str(error)}
    except MemoryError:
        said = {"error": "not enough memory; try --quality preview, or fewer --threads"}
    # The matcher may be anybody's: its failure becomes the row's text in the comparison.
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(said), file=answer, flush=True)
    os._exit(1 if said else 0)  # threads of a failed run must not keep the process


if __name__ == "__main__":
    sys.exit(main())
