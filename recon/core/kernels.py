"""Compiled functions: decorators that leave out what Numba makes of each and nobody calls.

A function gets two wrappers that are compiled too: one for calls from Python, one for calls from C. No kernel is called
from C, and what only other kernels call is not called from Python either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function that Python calls. ``options`` are those of Numba; compiled code is kept on disk."""
    return _jit(cache=True, **options)


def part_of_kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function that only kernels call, in whose compiled code it is kept. Python must not call it."""
    return _jit(no_cpython_wrapper=True, **options)


def _jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    decorator: Callable[[Callable[..., Any]], Any] = njit(nogil=True, no_cfunc_wrapper=True, **options)
    return decorator


def _choice(typing: Any, a: Any, b: Any, comparison: str) -> Any:
    """Type and code of the one of two numbers that compares so with the other; the first of equals."""
    kind = typing.unify_types(types.unliteral(a), types.unliteral(b))

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        one, other = (
            context.cast(builder, value, given, kind)
            for value, given in zip(args, signature.args, strict=True)
        )
        if isinstance(kind, types.Float):
            chosen = builder.fcmp_ordered(comparison, other, one)
        elif kind.signed:
            chosen = builder.icmp_signed(comparison, other, one)
        else:
            chosen = builder.icmp_unsigned(comparison, other, one)
        return builder.select(chosen, other, one)

    return kind(a, b), generate


@intrinsic
def minimum(typing: Any, a: Any, b: Any) -> Any:
    """The smaller of two numbers, in kernels only; ``min`` would be compiled as a function of its own in each."""
    return _choice(typing, a, b, "<")


@intrinsic
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """The larger of two numbers, in kernels only."""
    return _choice(typing, a, b, ">")
