# ruff: noqa: ARG001 (numba calls these functions with arguments that not all need)
"""Vectors of whole numbers for kernels: 32 of 16 bits (unsigned unless stated) at once, and distances of bytes.

As ``recon.core.vectors`` has them for numbers of single precision, and for the same reasons. Arrays are C-contiguous,
of 16 bits a number (of 8 where bytes are said); places count from the first element, whatever the array's shape, and
are not checked. Sums and differences wrap round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, register_model

SHORTS = 32
"""Numbers in a vector."""

BYTES = 64
"""Bytes that ``distance`` compares."""

_SHORT = ir.IntType(16)
_LLVM = ir.VectorType(_SHORT, SHORTS)
_COUNTING = ir.Constant(_LLVM, list(range(SHORTS)))
_BYTES = ir.VectorType(ir.IntType(8), BYTES)
_SUMS = ir.VectorType(ir.IntType(32), BYTES)


class _Shorts(types.Type):  # type: ignore[misc]
    """The type of a vector in a kernel."""


_VECTOR = _Shorts(f"int16x{SHORTS}")


@register_model(_Shorts)
class _ShortsModel(PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _LLVM)


def whole_vectors(a: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """An array of bytes whose last axis is a multiple of ``BYTES`` long, filled up with zeros: itself if it is."""
    missing = -a.shape[-1] % BYTES
    return np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, missing)]) if missing else np.ascontiguousarray(a)


def _address(
    context: Any, builder: Any, signature: Any, args: Any, first: int = 0, vector: Any = _LLVM
) -> Any:
    """Pointer to the vector that begins at an element of an array: two arguments from ``first`` on."""
    array = context.make_array(signature.args[first])(context, builder, args[first])
    return builder.bitcast(cgutils.gep(builder, array.data, args[first + 1]), vector.as_pointer())


def _all(builder: Any, value: Any) -> Any:
    """A vector of one number."""
    one = builder.insert_element(ir.Constant(_LLVM, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), SHORTS), [0] * SHORTS))


def _call(builder: Any, name: str, result: Any, args: Any) -> Any:
    """Call a function of LLVM's own."""
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


@intrinsic
def load(typing: Any, array: Any, at: Any) -> Any:
    """The elements from place ``at`` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature, args), align=2)

    return _VECTOR(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write the elements from place ``at`` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, signature, args), align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, _VECTOR), generate


@intrinsic
def store_part(typing: Any, array: Any, at: Any, value: Any, start: Any, end: Any) -> Any:
    """Write those of the elements from place ``at`` on whose place in the vector is start…end - 1; write the others
    back as they are."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature, args)
        start, end = (_all(builder, builder.trunc(arg, _SHORT)) for arg in args[3:])
        inside = builder.and_(
            builder.icmp_signed(">=", _COUNTING, start), builder.icmp_signed("<", _COUNTING, end)
        )
        builder.store(builder.select(inside, args[2], builder.load(place, align=2)), place, align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, _VECTOR, types.int64, types.int64), generate


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """A vector of one number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _all(builder, args[0])

    return _VECTOR(types.uint16), generate


@intrinsic
def plus(typing: Any, a: Any, b: Any) -> Any:
    """``a + b``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.add(*args)

    return _VECTOR(_VECTOR, _VECTOR), generate


@intrinsic
def plus_at_most(typing: Any, a: Any, b: Any) -> Any:
    """``a + b``, or 65535 where that is smaller."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, f"llvm.uadd.sat.v{SHORTS}i16", _LLVM, args)

    return _VECTOR(_VECTOR, _VECTOR), generate


@intrinsic
def minus(typing: Any, a: Any, b: Any) -> Any:
    """``a - b``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sub(*args)

    return _VECTOR(_VECTOR, _VECTOR), generate


@intrinsic
def smaller(typing: Any, a: Any, b: Any) -> Any:
    """The smaller one of each pair."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_unsigned("<", *args), *args)

    return _VECTOR(_VECTOR, _VECTOR), generate


@intrinsic
def within(typing: Any, a: Any, reach: Any) -> Any:
    """Signed numbers, those beyond ``reach`` to either side brought back to it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        low, high = _all(builder, builder.neg(args[1])), _all(builder, args[1])
        at_least = builder.select(builder.icmp_signed(">", args[0], low), args[0], low)
        return builder.select(builder.icmp_signed("<", at_least, high), at_least, high)

    return _VECTOR(_VECTOR, types.int16), generate


@intrinsic
def priced(typing: Any, a: Any, price: Any, most: Any) -> Any:
    """Sizes of signed numbers times ``price`` of single precision, rounded, at most ``most``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        size = _call(builder, f"llvm.abs.v{SHORTS}i16", _LLVM, [args[0], ir.IntType(1)(0)])
        floats = ir.VectorType(ir.FloatType(), SHORTS)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), SHORTS), [0] * SHORTS)
        price, most = (
            builder.shuffle_vector(one, one, zeros)
            for one in (
                builder.insert_element(ir.Constant(floats, ir.Undefined), value, ir.IntType(32)(0))
                for value in args[1:]
            )
        )
        cost = builder.fmul(builder.uitofp(size, floats), price)
        cost = builder.fadd(cost, ir.Constant(floats, [0.5] * SHORTS))
        cost = builder.select(builder.fcmp_ordered("<", cost, most), cost, most)
        return builder.fptoui(cost, _LLVM)

    return _VECTOR(_VECTOR, types.float32, types.float32), generate


@intrinsic
def where_equal(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """``yes`` where a = b, else ``no``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_unsigned("==", args[0], args[1]), args[2], args[3])

    return _VECTOR(_VECTOR, _VECTOR, _VECTOR, _VECTOR), generate


@intrinsic
def where_smaller(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """``yes`` where a < b, else ``no``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_unsigned("<", args[0], args[1]), args[2], args[3])

    return _VECTOR(_VECTOR, _VECTOR, _VECTOR, _VECTOR), generate


@intrinsic
def lowest(typing: Any, a: Any) -> Any:
    """The smallest number of a vector of signed ones."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = _call(builder, f"llvm.vector.reduce.smin.v{SHORTS}i16", _SHORT, args)
        return builder.sext(found, ir.IntType(64))

    return types.int64(_VECTOR), generate


@intrinsic
def highest(typing: Any, a: Any) -> Any:
    """The largest number of a vector of signed ones."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = _call(builder, f"llvm.vector.reduce.smax.v{SHORTS}i16", _SHORT, args)
        return builder.sext(found, ir.IntType(64))

    return types.int64(_VECTOR), generate


@intrinsic
def holds(typing: Any, a: Any, value: Any) -> Any:
    """Whether a vector holds a number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        equal = builder.icmp_unsigned("==", args[0], _all(builder, args[1]))
        bits = builder.bitcast(equal, ir.IntType(SHORTS))
        return builder.icmp_unsigned("!=", bits, bits.type(0))

    return types.boolean(_VECTOR, types.int16), generate


def _shuffle(builder: Any, args: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(*args, ir.Constant(ir.VectorType(ir.IntType(32), SHORTS), places))


@intrinsic
def every_second(typing: Any, a: Any, b: Any) -> Any:
    """Elements 0, 2, 4, … of two vectors one behind the other."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _shuffle(builder, args, list(range(0, 2 * SHORTS, 2)))

    return _VECTOR(_VECTOR, _VECTOR), generate


@intrinsic
def by_turns(typing: Any, a: Any, b: Any) -> Any:
    """The first element of a, that of b, the second one of a, that of b, … up to half of each."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _shuffle(builder, args, [i // 2 + i % 2 * SHORTS for i in range(SHORTS)])

    return _VECTOR(_VECTOR, _VECTOR), generate


@intrinsic
def distance(typing: Any, a: Any, at_a: Any, b: Any, at_b: Any) -> Any:
    """Sum of the absolute differences of ``BYTES`` bytes of two arrays from a place on; there are instructions for it
    that compilers find in this form."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one, other = (
            builder.zext(
                builder.load(_address(context, builder, signature, args, first, _BYTES), align=1), _SUMS
            )
            for first in (0, 2)
        )
        gaps = [builder.sub(one, other), ir.IntType(1)(0)]
        gap = _call(builder, f"llvm.abs.v{BYTES}i32", _SUMS, gaps)
        return _call(builder, f"llvm.vector.reduce.add.v{BYTES}i32", ir.IntType(32), [gap])

    return types.int32(a, types.intp, b, types.intp), generate
