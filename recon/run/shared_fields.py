"""Dense fields that several runs share: computed once, found again by a hash of all that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def content_key(identity: Mapping[str, Any], arrays: Iterable[np.ndarray | None] = ()) -> str:
    """The hash of JSON values and of arrays in their order, in hexadecimal."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for values in arrays:
        digest.update(b"none" if values is None else np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def copy_into_place(source: Path, target: Path, copy: Callable[[str, str], object] = shutil.copy2) -> None:
    """Copy a directory beside its place, file by file with ``copy``, and rename it; one that is there stays."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.partial")
    shutil.copytree(source, beside, copy_function=copy)
    try:
        os.replace(beside, target)
    except OSError:
        shutil.rmtree(beside)
        if not target.exists():
            raise
