"""One torch thread per matcher thread: the same sums in the same order, whatever the machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_users = 0
_before = 1


@contextmanager
def inference() -> Iterator[Any]:
    """Torch without gradients and with one thread in this thread; yields the module.

    Sums over several threads differ in their last digits with the number of threads. Matchers run in several
    threads of ours instead. The number that was set before comes back when the last user leaves.
    """
    import torch

    global _users, _before
    with _lock:
        if _users == 0:
            _before = torch.get_num_threads()
        _users += 1
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield torch
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                torch.set_num_threads(_before)
