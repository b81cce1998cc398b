# ruff: noqa: ARG001 (numba calls these functions with arguments that not all need)
"""Vectors of single-precision numbers for kernels: sixteen at once, whatever the width of the processor's registers.

Compilers vectorise a loop only where they can prove that its arrays do not overlap, which fails as soon as a loop reads
more than a few. With these functions a kernel says itself what is done at once; it also compiles faster, because there
is nothing to prove and no second version of the loop to write. They work in kernels only. Arrays are C-contiguous and
float32 unless stated; places count from the first element, whatever their shape, and are not checked. Arrays of numbers
that vectors read have room behind each row (``with_room``).
"""

from __future__ import annotations

import math
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
_FAST = ("reassoc", "contract", "arcp", "nsz", "afn")  # what is no number stays recognisable

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


def with_spare(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Zeros without room behind each row, but behind all: vectors that read over a row's end read the next row."""
    size = math.prod(shape)
    return np.zeros(size + LANES, np.float32)[:size].reshape(shape)


def given_spare(a: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A copy of an array as ``with_spare`` has them."""
    spare = with_spare(a.shape)
    spare[...] = a
    return spare


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
        one, other = _firsts(builder, args)
        return _shuffled(builder, one, other, [0] * (LANES // 2) + [LANES] * (LANES // 2))

    return _VECTOR(types.float32, types.float32), generate


@intrinsic
def folded(typing: Any, a: Any, b: Any) -> Any:
    """The halves of a added up, and behind them those of b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        half = list(range(LANES // 2))
        one, other = args
        first = _shuffled(builder, one, other, half + [LANES + i for i in half])
        second = _shuffled(
            builder, one, other, [LANES // 2 + i for i in half] + [LANES * 3 // 2 + i for i in half]
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
def counting(typing: Any, first: Any) -> Any:
    """A number, the next whole step after it, and so on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (one,) = _firsts(builder, args)
        steps = ir.Constant(_LLVM, [float(i) for i in range(LANES)])
        return builder.fadd(_shuffled(builder, one, one, [0] * LANES), steps, flags=_FAST)

    return _VECTOR(types.float32), generate


@intrinsic
def root(typing: Any, a: Any) -> Any:
    """The square root of each number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_LLVM, [_LLVM])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f32")
        return builder.call(function, args, fastmath=_FAST)

    return _VECTOR(_VECTOR), generate


@intrinsic
def where_equal(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """``yes`` where a = b, else ``no``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("==", args[0], args[1]), args[2], args[3])

    return _VECTOR(_VECTOR, _VECTOR, _VECTOR, _VECTOR), generate


@intrinsic
def where_larger(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """``yes`` where a > b, else ``no``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return _VECTOR(_VECTOR, _VECTOR, _VECTOR, _VECTOR), generate


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
def all_within(typing: Any, value: Any, low: Any, high: Any) -> Any:
    """Whether all numbers of a vector lie from ``low`` to ``high``; what is no number does not."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        low, high = (_shuffled(builder, one, one, [0] * LANES) for one in _firsts(builder, args[1:]))
        inside = builder.and_(
            builder.fcmp_ordered(">=", args[0], low), builder.fcmp_ordered("<=", args[0], high)
        )
        bits = builder.bitcast(inside, ir.IntType(LANES))
        return builder.icmp_unsigned("==", bits, bits.type(2**LANES - 1))

    return types.boolean(_VECTOR, types.float32, types.float32), generate


@intrinsic
def cubic(typing: Any, array: Any, at: Any, width: Any, x: Any, y: Any) -> Any:
    """Cubic convolution (Keys 1981, a = -0.5) of an image at sixteen points.

    The points count from place ``at``, rows are ``width`` elements apart; what lies one pixel before and two behind
    each point is read.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        kind = ir.FunctionType(_LLVM, [_LLVM])
        floor = cgutils.get_or_insert_function(builder.module, kind, f"llvm.floor.v{LANES}f32")
        whole = [builder.call(floor, [one]) for one in args[3:]]
        across, down = (
            _cubic_weights(builder, builder.fsub(one, floored, flags=_FAST))
            for one, floored in zip(args[3:], whole, strict=True)
        )
        first = builder.sub(args[1], builder.add(args[2], args[2].type(1)))
        places = _pixels(builder, first, args[2], *whole)
        four = ir.VectorType(ir.FloatType(), 4)
        # Of four points each, summed up down the columns: four columns of one point, four of the next.
        parts: list[Any] = []
        for part in range(0, LANES, 4):
            total: Any = None
            for j in range(4):
                taps = []
                for i in range(part, part + 4):
                    place = cgutils.gep(builder, array.data, places[i])
                    taps.append(builder.load(builder.bitcast(place, four.as_pointer()), align=4))
                    places[i] = builder.add(places[i], args[2])
                while len(taps) > 1:
                    taps = [_joined(builder, *taps[k : k + 2]) for k in range(0, len(taps), 2)]
                weight = _shuffled(builder, down[j], down[j], [part + k // 4 for k in range(LANES)])
                term = builder.fmul(taps[0], weight, flags=_FAST)
                total = term if total is None else builder.fadd(total, term, flags=_FAST)
            parts.append(total)
        result: Any = None
        for i in range(4):
            picks = [i + 4 * k for k in range(8)] * 2
            eight, others = (_shuffled(builder, parts[k], parts[k + 1], picks) for k in (0, 2))
            values = _shuffled(builder, eight, others, [*range(LANES // 2), *range(LANES, LANES * 3 // 2)])
            term = builder.fmul(values, across[i], flags=_FAST)
            result = term if result is None else builder.fadd(result, term, flags=_FAST)
        return result

    return _VECTOR(array, types.intp, types.intp, _VECTOR, _VECTOR), generate


def _cubic_weights(builder: Any, part: Any) -> list[Any]:
    """Weights of the four pixels round points that lie so far behind the second of them."""
    weights = []
    # Polynomials of the third degree in the distance from the second pixel.
    for a, b, c, d in (
        (-0.5, 1.0, -0.5, 0.0),
        (1.5, -2.5, 0.0, 1.0),
        (-1.5, 2.0, 0.5, 0.0),
        (0.5, -0.5, 0.0, 0.0),
    ):
        value = ir.Constant(_LLVM, [a] * LANES)
        for next_one in (b, c, d):
            value = builder.fmul(value, part, flags=_FAST)
            if next_one:
                value = builder.fadd(value, ir.Constant(_LLVM, [next_one] * LANES), flags=_FAST)
        weights.append(value)
    return weights


def _joined(builder: Any, a: Any, b: Any) -> Any:
    """Two vectors one behind the other."""
    count = 2 * a.type.count
    places = ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(count)))
    return builder.shuffle_vector(a, b, places)


def _firsts(builder: Any, values: Any) -> list[Any]:
    """Vectors whose first elements are these numbers."""
    return [builder.insert_element(_ZERO, value, ir.IntType(32)(0)) for value in values]


def _pixels(builder: Any, at: Any, width: Any, x: Any, y: Any) -> list[Any]:
    """Places in an image of the pixels (x, y), rounded towards zero, that count from place ``at``."""
    number = ir.IntType(32)
    column, row = (builder.fptosi(one, _WHOLE) for one in (x, y))
    pitch = builder.insert_element(ir.Constant(_WHOLE, ir.Undefined), builder.trunc(width, number), number(0))
    offset = builder.add(builder.mul(row, _shuffled(builder, pitch, pitch, [0] * LANES)), column)
    return [
        builder.add(at, builder.sext(builder.extract_element(offset, number(i)), at.type))
        for i in range(LANES)
    ]


@intrinsic
def bilinear(typing: Any, array: Any, at: Any, width: Any, x: Any, y: Any) -> Any:
    """Bilinear samples of an image at sixteen points (x, y), none negative.

    The points count from place ``at``, rows are ``width`` elements apart; a pixel after each point is read.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        across, down = (
            builder.fsub(one, builder.sitofp(builder.fptosi(one, _WHOLE), _LLVM), flags=_FAST)
            for one in args[3:]
        )
        places = _pixels(builder, *args[1:])
        pair, pairs = ir.IntType(64), ir.VectorType(ir.IntType(64), LANES // 2)
        rows = []
        for _ in range(2):
            parts = []
            for half in range(0, LANES, LANES // 2):
                part = ir.Constant(pairs, ir.Undefined)
                for i in range(LANES // 2):
                    place = cgutils.gep(builder, array.data, places[half + i])
                    two = builder.load(builder.bitcast(place, pair.as_pointer()), align=4)
                    part = builder.insert_element(part, two, ir.IntType(32)(i))
                    places[half + i] = builder.add(places[half + i], args[2])
                parts.append(builder.bitcast(part, _LLVM))
            left, right = (
                _shuffled(builder, parts[0], parts[1], list(range(odd, 2 * LANES, 2))) for odd in (0, 1)
            )
            rows.append(_mixed(builder, left, right, across))
        return _mixed(builder, rows[0], rows[1], down)

    return _VECTOR(array, types.intp, types.intp, _VECTOR, _VECTOR), generate


def _mixed(builder: Any, a: Any, b: Any, share: Any) -> Any:
    """``a + share (b - a)``."""
    return builder.fadd(a, builder.fmul(share, builder.fsub(b, a, flags=_FAST), flags=_FAST), flags=_FAST)


@intrinsic
def pixels(typing: Any, array: Any, at: Any, width: Any, x: Any, y: Any) -> Any:
    """The pixels of an image at sixteen points (x, y), rounded towards zero, that count from place ``at``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        found = ir.Constant(_LLVM, ir.Undefined)
        for i, place in enumerate(_pixels(builder, *args[1:])):
            one = builder.load(cgutils.gep(builder, array.data, place))
            found = builder.insert_element(found, one, ir.IntType(32)(i))
        return found

    return _VECTOR(array, types.intp, types.intp, _VECTOR, _VECTOR), generate
