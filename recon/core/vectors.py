# ruff: noqa: ARG001 (numba calls these functions with arguments that not all need)
"""Vectors of single-precision numbers for kernels: sixteen at once, whatever the width of the processor's registers.

Compilers vectorise a loop only where they can prove that its arrays do not overlap, which fails as soon as a loop reads
more than a few. With these functions a kernel says itself what is done at once; it also compiles faster, because there
is nothing to prove and no second version of the loop to write. They work in kernels only. Arrays are C-contiguous and
float32 unless stated; places count from the first element, whatever their shape, and are not checked. Arrays of numbers
that vectors read have room behind each row (``with_room``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, register_model

LANES = 16
"""Numbers in a vector."""

_LLVM = ir.VectorType(ir.FloatType(), LANES)
_ZERO = ir.Constant(_LLVM, [0.0] * LANES)
_WHOLE = ir.VectorType(ir.IntType(32), LANES)
_FAST = ("fast",)

# What writes the code of a function: context, builder, signature, arguments.
_Generate = Callable[[Any, Any, Any, Any], Any]


class _Vector(types.Type):  # type: ignore[misc]
    """The type of a vector in a kernel."""


_VECTOR = _Vector(f"float32x{LANES}")


@register_model(_Vector)
class _VectorModel(PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _LLVM)


def with_room(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Zeros with rows longer by ``LANES``: vectors may read over a row's end, and rows of a power of two elements do
    not meet in the same lines of the processor's cache, which costs half the speed."""
    return np.zeros((*shape[:-1], shape[-1] + LANES), np.float32)


def given_room(a: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A copy of an array as ``with_room`` has them."""
    room = with_room(a.shape)
    room[..., : a.shape[-1]] = a
    return room


def _address(context: Any, builder: Any, signature: Any, args: Any, kind: Any = _LLVM) -> Any:
    """Pointer to the vector that begins at an element of an array: arguments 0 and 1."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.bitcast(cgutils.gep(builder, array.data, args[1]), kind.as_pointer())


def _shuffled(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    """The elements at ``places`` of two vectors one behind the other."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), LANES), places))


def _of_two(operation: str) -> tuple[Any, _Generate]:
    """Type and code of an operation on two vectors."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, operation)(*args, flags=_FAST)

    return _VECTOR(_VECTOR, _VECTOR), generate


@intrinsic
def load(typing: Any, array: Any, at: Any) -> Any:
    """The elements from place ``at`` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature, args), align=4)

    return _VECTOR(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write the elements from place ``at`` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, signature, args), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _VECTOR), generate


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """A vector of one number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = builder.insert_element(_ZERO, args[0], ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, _ZERO, mask)

    return _VECTOR(types.float32), generate


@intrinsic
def times(typing: Any, a: Any, b: Any) -> Any:
    """``a b``."""
    return _of_two("fmul")


@intrinsic
def plus(typing: Any, a: Any, b: Any) -> Any:
    """``a + b``."""
    return _of_two("fadd")


@intrinsic
def minus(typing: Any, a: Any, b: Any) -> Any:
    """``a - b``."""
    return _of_two("fsub")


@intrinsic
def over(typing: Any, a: Any, b: Any) -> Any:
    """``a / b``."""
    return _of_two("fdiv")


@intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """The larger one of each pair."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[0], args[1])

    return _VECTOR(_VECTOR, _VECTOR), generate


@intrinsic
def smaller(typing: Any, a: Any, b: Any) -> Any:
    """The smaller one of each pair."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[0], args[1])

    return _VECTOR(_VECTOR, _VECTOR), generate


@intrinsic
def total(typing: Any, a: Any) -> Any:
    """The sum of a vector's numbers, in any order."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _LLVM])
        function = cgutils.get_or_insert_function(
            builder.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f32"
        )
        return builder.call(function, [ir.FloatType()(0.0), args[0]], fastmath=_FAST)

    return types.float32(_VECTOR), generate


@intrinsic
def halves(typing: Any, first: Any, second: Any) -> Any:
    """A vector whose first half is one number and whose second half another."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        both = (builder.insert_element(_ZERO, arg, ir.IntType(32)(0)) for arg in args)
        return _shuffled(builder, *both, [0] * (LANES // 2) + [LANES] * (LANES // 2))

    return _VECTOR(types.float32, types.float32), generate


@intrinsic
def folded(typing: Any, a: Any, b: Any) -> Any:
    """The halves of a added up, and behind them those of b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        half = list(range(LANES // 2))
        first = _shuffled(builder, *args, half + [LANES + i for i in half])
        second = _shuffled(
            builder, *args, [LANES // 2 + i for i in half] + [LANES * 3 // 2 + i for i in half]
        )
        return builder.fadd(first, second, flags=_FAST)

    return _VECTOR(_VECTOR, _VECTOR), generate


@intrinsic
def load_whole(typing: Any, array: Any, at: Any) -> Any:
    """The elements from place ``at`` on of an array of unsigned whole numbers of 8 or 16 bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.IntType(signature.args[0].dtype.bitwidth), LANES)
        value = builder.load(_address(context, builder, signature, args, kind), align=1)
        return builder.sitofp(builder.zext(value, _WHOLE), _LLVM)

    return _VECTOR(array, types.intp), generate


@intrinsic
def store_bytes(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write numbers of 0…255, rounded down, to the elements of an array of bytes from place ``at`` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.IntType(8), LANES)
        value = builder.trunc(builder.fptosi(args[2], _WHOLE), kind)
        builder.store(value, _address(context, builder, signature, args, kind), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, _VECTOR), generate


@intrinsic
def within(typing: Any, value: Any, gap: Any, limit: Any) -> Any:
    """``value`` where ``|gap| <= limit``, else 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, gap, limit = args
        low = builder.fcmp_ordered(">=", gap, builder.fsub(_ZERO, limit))
        high = builder.fcmp_ordered("<=", gap, limit)
        return builder.select(builder.and_(low, high), value, _ZERO)

    return _VECTOR(_VECTOR, _VECTOR, _VECTOR), generate


@intrinsic
def load_pair(typing: Any, array: Any, at: Any) -> Any:
    """The two elements from a place on as one whole number of 64 bits, to be copied by a single access to memory."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        place = cgutils.gep(builder, array.data, args[1])
        return builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=4)

    return types.int64(array, types.intp), generate
