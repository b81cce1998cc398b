"""Compiled functions: decorators that leave out what Numba makes of each and nobody calls.

A function gets two wrappers that are compiled too: one for calls from Python, one for calls from C. No kernel is called
from C, and what only other kernels call is not called from Python either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function that Python calls. ``options`` are those of Numba; compiled code is kept on disk."""
    return _jit(cache=True, **options)


def part_of_kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function that only kernels call, in whose compiled code it is kept. Python must not call it."""
    return _jit(no_cpython_wrapper=True, **options)


def _jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    decorator: Callable[[Callable[..., Any]], Any] = njit(nogil=True, no_cfunc_wrapper=True, **options)
    return decorator
