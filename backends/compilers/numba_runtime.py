"""What generated kernels, and the look at a state's arrays, need of numba. Imports it: only ``host.py`` imports this, when asked.

A state of a thousand arrays must not cost a thousand calls from Python. So the arrays are looked at here, in compiled code, where
the C interfaces of NumPy (its array struct, which every compiled extension reads) and of DLPack (``dltensor_from_py_object``) say
where their numbers are.
"""

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "bfloat16_to_float",
    "carray",
    "copy",
    "fetch_add",
    "float_to_bfloat16",
    "float_to_half",
    "half_to_float",
    "in_team",
    "inspect",
    "look",
    "pointer_to",
    "prefetch",
]


def pointer_to(dtype: Any) -> Any:
    """A function that makes an address a pointer to numbers of ``dtype``, for ``carray``."""

    @intrinsic
    def pointer(context: Any, address: Any) -> Any:
        signature = types.CPointer(dtype)(types.intp)

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return signature, code

    return pointer


@intrinsic
def prefetch(context: Any, address: Any) -> Any:
    """Asks for the memory at an address, which may be anything: what is not there is not fetched."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        read, near, data = number(0), number(3), number(1)
        builder.call(function, [builder.inttoptr(arguments[0], pointer), read, near, data])
        return context.get_dummy_value()

    return types.void(types.intp), code


@intrinsic
def copy(context: Any, to: Any, source: Any, size: Any) -> Any:
    """Copies bytes between addresses that do not overlap."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        to, source = (builder.inttoptr(x, byte) for x in arguments[:2])
        cgutils.raw_memcpy(builder, to, source, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), code


@intrinsic
def fetch_add(context: Any, address: Any, number: Any) -> Any:
    """Adds to the 64 bits at an address that threads share, and returns what was there before."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "acq_rel")

    return types.int64(types.intp, types.int64), code


@intrinsic
def _shared_word(context: Any, address: Any) -> Any:
    """The 64 bits at an address that other threads write to."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()), "acquire", 8)

    return types.int64(types.intp), code


@njit(inline="always")
def look(address: Any, number: Any, times: Any) -> None:
    """Looks at an address that other threads write to until ``number`` is there, or it has looked so many times."""
    while times > 0 and _shared_word(address) != number:
        times -= 1


# A kernel on the threads of OpenMP.


@intrinsic
def _call_kernel(context: Any, address: Any, arguments: Any) -> Any:
    """Calls a kernel at the address that C calls it by."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        nothing, kinds = context.get_value_type(types.none), [context.get_value_type(kind) for kind in arguments]
        function = builder.inttoptr(given[0], ir.FunctionType(nothing, kinds).as_pointer())
        builder.call(function, cgutils.unpack_tuple(builder, given[1]))
        return context.get_dummy_value()

    return types.void(types.intp, arguments), code


def _take_part(kernel: Any, subnormal: Any, one: Any, quarter: Any, arguments: Any) -> None:
    """What each thread of a team does: nothing, where it does not round as Python does. See ``threads.rounds_as_python_does``."""
    if subnormal * 0.5 != 0.0 and one + quarter == one and one + 3.0 * quarter != one:
        _call_kernel(kernel, arguments)


@intrinsic
def _parallel(context: Any, parallel: Any, members: Any, work: Any) -> Any:
    """Calls ``GOMP_parallel``, at an address, with a C function that takes part in ``work``. It returns when all have ended."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer])
        member = ir.Function(builder.module, kind, builder.module.get_unique_name("member"))
        member.linkage = "internal"
        inside, part = ir.IRBuilder(member.append_basic_block()), types.void(*work)
        shared = inside.load(inside.bitcast(member.args[0], context.get_value_type(work).as_pointer()))
        take_part = context.compile_subroutine(builder, _take_part, part).fndesc
        context.call_internal_no_propagate(inside, take_part, part, cgutils.unpack_tuple(inside, shared))
        inside.ret_void()
        place = builder.bitcast(cgutils.alloca_once_value(builder, given[2]), pointer)
        function = ir.FunctionType(ir.VoidType(), [kind.as_pointer(), pointer, number, number])
        builder.call(builder.inttoptr(given[0], function.as_pointer()), [member, place, given[1], number(0)])
        return context.get_dummy_value()

    return types.void(types.intp, types.uint32, work), code


@njit
def in_team(parallel: Any, members: Any, work: Any) -> None:
    """Does ``work``, the arguments of ``_take_part``, in so many threads of the OpenMP whose ``GOMP_parallel`` is at an address."""
    if parallel != 0:
        _parallel(parallel, members, work)


# The narrow formats, as integers of 16 bits.


@intrinsic
def half_to_float(context: Any, bits: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), code


@intrinsic
def float_to_half(context: Any, x: Any) -> Any:
    """Rounded once, to nearest, ties to even."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), code


@intrinsic
def _bits(context: Any, x: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), code


@intrinsic
def _float(context: Any, bits: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), code


@njit(inline="always")
def bfloat16_to_float(bits: Any) -> Any:
    return _float(np.uint32(np.uint32(bits) << np.uint32(16)))


@njit(inline="always")
def float_to_bfloat16(x: Any) -> Any:
    """Rounded once, to nearest, ties to even: bfloat16 is the upper half of a float32."""
    bits = _bits(x)
    even = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.uint16(even if x == x else np.uint32(0x7FC0))  # NaN stays NaN


# Looking at arrays.

_SWAPPED = ord(">" if sys.byteorder == "little" else "<")

SOON = 4
"""Leaves by which what a look needs is asked for before: first the objects, then what they refer to."""


@intrinsic
def _call(context: Any, function: Any, obj: Any, out: Any) -> Any:
    """Calls a C function ``int f(PyObject *, void *)`` at an address. The GIL is held."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.IntType(32), [word, word])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int32(types.intp, types.intp, types.intp), code


@intrinsic
def _room(context: Any) -> Any:
    """The address of 64 bytes on the stack."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(64), 8)), ir.IntType(64))

    return types.intp(), code


@intrinsic
def _word(context: Any, address: Any) -> Any:
    """The 64 bits at an address."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))

    return types.int64(types.intp), code


@intrinsic
def _half_word(context: Any, address: Any) -> Any:
    """The 32 bits at an address, as a signed number."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sext(builder.load(builder.inttoptr(arguments[0], ir.IntType(32).as_pointer())), ir.IntType(64))

    return types.int64(types.intp), code


@njit
def _dtype(fields: Any) -> Any:
    """What NumPy's dtype, of which several objects may be equal, is: its number, or another one where it is not in native order.

    Behind a pointer are four characters, the third of which is the byte order, and the number, of 32 bits.
    """
    order = (_word(fields + 8) >> 16) & 0xFF
    return _half_word(fields + 12) + (1 << 20 if order == _SWAPPED else 0)


@njit
def _dense(dims: Any, shape: Any, strides: Any, unit: Any) -> Any:
    """Whether the numbers fill a piece of memory without gaps, in whatever order of the dimensions. Strides in units."""
    expected = unit
    for _ in range(dims):
        for d in range(dims):
            size = _word(shape + 8 * d)
            if size != 1 and _word(strides + 8 * d) == expected:
                expected *= size
                break
    total = unit
    for d in range(dims):
        total *= _word(shape + 8 * d)
    return total == expected or total == 0


_integers = pointer_to(types.int64)


@njit
def _array(description: Any, at: Any) -> Any:
    """The array of integers that is described at an address, as the first, the second, ...: by its own address and its shape."""
    place = description + 24 * at
    return carray(_integers(_word(place)), (_word(place + 8), _word(place + 16)))


@njit  # in a kernel, which is kept where the others are: see numba_kernels.inspector
def inspect(lists: Any, library: Any, table: Any, to_write: Any) -> int:
    """Where the numbers of each leaf are, if all its arrays have one shape, one dense layout and the dtypes of a known format.

    It is called as C calls: to find out what arrays it is given takes numba longer than the look.

    Parameters
    ----------
    lists
        The address of a list of lists, a column each: the first array of each leaf, then the second, ...
    library, table
        Where a ``host.Described`` of the arrays that are named below is.
    to_write
        Whether all columns but the last will be written.

    Returns bits: 1 where any size, format or column that is None, 2 where any address of what is written, is another than what was
    there, and 4 where a gradient that is elsewhere than it was, as those of a training loop are, meets what is ``written``.
    """
    numbers = _array(library, 0)[0]
    header = numbers[0]  # bytes before the fields of a PyObject
    reader = numbers[1]  # 0 for NumPy, else the address of DLPack's function
    clear = numbers[2]  # address of PyErr_Clear
    known = _array(library, 1)[0]  # addresses: of None, of the array types
    tags = _array(library, 2)  # of each format: the dtypes of params and of slots, and the units that their strides count
    marks = _array(library, 3)[0]  # offsets of a pointer in an array and of a word behind it, and what it must be; or nothing
    widths = _array(library, 4)[0]  # of each format: the bytes of a number of params and gradients
    addresses = _array(table, 0)  # in and out: [leaf, column], where the numbers are; 0 where there is None
    sizes = _array(table, 1)[0]  # in and out: numbers of each leaf
    formats = _array(table, 2)[0]  # in and out: of each leaf, or -1 where it is not for the kernels
    written = _array(table, 3)  # where what is written begins and ends, in order and apart, for these addresses; or nothing
    room = _room()
    leaves, columns = addresses.shape
    changed, moved, fresh = False, False, False
    items = np.empty(columns, np.int64)  # where each list has the addresses of its objects
    for column in range(columns):
        items[column] = _word(_word(_word(lists + header + 8) + 8 * column) + header + 8)
    for leaf in range(leaves):
        if leaf + 2 * SOON < leaves:
            for column in range(columns):
                prefetch(_word(items[column] + 8 * (leaf + 2 * SOON)))
                prefetch(_word(items[column] + 8 * (leaf + 2 * SOON)) + 64)
        if leaf + SOON < leaves:
            for column in range(columns):  # an array begins with the address of its numbers, or of what knows it
                fields = _word(items[column] + 8 * (leaf + SOON)) + header
                if reader == 0:
                    prefetch(_word(fields + 16))
                else:
                    for field in range(0, 16, 8):
                        for line in range(0, 192, 64):
                            prefetch(_word(fields + field) + line)
        size, format_, other = 0, -1, False
        dims, shape, strides = 0, 0, 0
        good = True
        for column in range(columns):
            obj = _word(items[column] + 8 * leaf)
            data = 0
            if obj != known[0]:
                kind = _word(obj + header - 8)
                good = False
                for i in range(1, known.shape[0]):
                    good = good or kind == known[i]
                if good and marks.size > 0:
                    word, good = _word(_word(obj + marks[0]) + marks[1]), False
                    for i in range(2, marks.size):
                        good = good or word == marks[i]
                if not good:
                    break
                if reader == 0:
                    data, own_dims = _word(obj + header), _half_word(obj + header + 8)
                    own_shape, own_strides = _word(obj + header + 16), _word(obj + header + 24)
                    tag, flags = _dtype(_word(obj + header + 40) + header), _half_word(obj + header + 48)
                    aligned, writable = flags & 0x100, flags & 0x400
                    good = aligned and (not to_write or column == columns - 1 or writable)
                elif _call(reader, obj, room) == 0:
                    good = _half_word(room + 8) == 1  # the device: 1 is the CPU
                    data, own_dims = _word(room) + _word(room + 40), _half_word(room + 16)
                    own_shape, own_strides, tag = _word(room + 24), _word(room + 32), _half_word(room + 20)
                else:
                    _call(clear, 0, 0)
                    good = False
                if not good:
                    break
                if column == 0:
                    dims, shape, strides, own = own_dims, own_shape, own_strides, -1
                    for i in range(tags.shape[0]):
                        if tags[i, 0] == tag:
                            own = i
                    good = own >= 0 and _dense(dims, shape, strides, tags[own, 2])
                    if not good:
                        break
                    format_, size = own, 1
                    for d in range(dims):
                        size *= _word(shape + 8 * d)
                else:
                    role = 0 if column == columns - 1 else 1
                    good = tag == tags[format_, role] and own_dims == dims
                    if good:
                        for d in range(dims):
                            of = 8 * d
                            n = _word(shape + of)
                            ours, theirs = _word(strides + of) * tags[format_, 2 + role], _word(own_strides + of) * tags[format_, 2]
                            good = good and n == _word(own_shape + of) and (ours == theirs or n == 1)
                    if not good:
                        break
                data = max(data, 1)  # an empty array may be nowhere
            other = other or (data == 0) != (addresses[leaf, column] == 0)
            if data != addresses[leaf, column]:
                fresh = fresh or column == columns - 1
                moved = moved or column != columns - 1
            addresses[leaf, column] = data
        if not good:
            format_ = -1
        changed = changed or size != sizes[leaf] or format_ != formats[leaf] or other
        sizes[leaf], formats[leaf] = size, format_
    met = fresh and not changed and not moved and _meets(written, widths, addresses, sizes, formats)
    return 1 * changed + 2 * moved + 4 * met


@njit
def _meets(written: Any, widths: Any, addresses: Any, sizes: Any, formats: Any) -> Any:
    """Whether a gradient overlaps with what is written."""
    for leaf in range(sizes.shape[0]):
        start = addresses[leaf, -1]
        stop = start + widths[formats[leaf]] * sizes[leaf]
        low, high = 0, written.shape[1]  # the last piece that begins before the gradient ends is one before ``low``
        while low < high:
            middle = (low + high) // 2
            if written[0, middle] < stop:
                low = middle + 1
            else:
                high = middle
        if stop > start and low > 0 and written[1, low - 1] > start:
            return True
    return False
