"""Being asked to end, as commands that run long take it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recon.errors import ReconError


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block, being asked to end (SIGTERM) works like Ctrl-C: the workspace can be resumed.

    pycolmap is imported first: its logging library takes SIGTERM for a crash, and the last handler holds.
    """
    import recon.core.colmap  # noqa: F401

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    except KeyboardInterrupt:
        raise ReconError("stopped") from None
    finally:
        signal.signal(signal.SIGTERM, before)
