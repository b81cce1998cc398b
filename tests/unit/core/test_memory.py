"""The C library's memory, as a run sets it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from recon.core.memory import once
from recon.core.parallel import map_ordered

TWENTY_TIMES_32_MB = """
import resource, sys
import numpy as np
from recon.core.memory import keep_for_arrays
if sys.argv[1:]:
    keep_for_arrays()
for count in range(22):
    if count == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(1 << 21, np.uint8) for _ in range(16)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_freed_memory_is_kept_for_arrays() -> None:
    """Pages that are taken anew for arrays like those freed just before."""
    # Dask leaves its workers' settings in the environment of a process that started some.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    new, kept = (
        int(subprocess.check_output([sys.executable, "-c", TWENTY_TIMES_32_MB, *more], env=plain))
        for more in ((), ("keep",))
    )
    assert kept < 1000 < new


def test_threads_that_ask_at_once_get_the_same_thing() -> None:
    """What takes a while to make is made once."""
    made: list[object] = []

    def make() -> object:
        time.sleep(0.05)
        made.append(object())
        return made[-1]

    kept = once(make)
    found = map_ordered(lambda _: kept(), range(4), 4)
    assert len(made) == 1
    assert all(one is made[0] for one in found)
