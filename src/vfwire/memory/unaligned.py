"""Reads and writes of packet bytes at any alignment, for headers and payloads wherever a guest has put them.

`words.py` loads whole atomic words, which Arm does only at aligned addresses; a guest chooses where a header
begins. Each read here is one volatile access: the value is fetched exactly once, never again after a check,
whatever another side writes meanwhile (it may be torn, as any DMA read of a packet may). No order is
promised: take the descriptor that hands over a buffer with `words.load…` first. `…_be` is network byte
order.
"""

import ctypes
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from vfwire.memory.compiled import jit_disabled

BLOCK = 64  # bytes that one step of `sum_blocks` reads


class _VolatileLoad(ir.instructions.LoadInstr):  # type: ignore[misc]
    """llvmlite has no volatile flag; the text of the instruction is all that LLVM reads."""

    def descr(self, buf: list[str]) -> None:
        parts: list[str] = []
        super().descr(parts)
        buf.append("".join(parts).replace("load ", "load volatile ", 1))


def _load(builder: Any, address: Any, kind: Any) -> Any:
    pointer = builder.inttoptr(address, kind.as_pointer())
    instruction = _VolatileLoad(builder.block, pointer, typ=kind)
    instruction.align = 1
    builder._insert(instruction)
    return instruction


def _make_read(bits: int, big_endian: bool) -> Any:
    if jit_disabled():
        order = "big" if big_endian else "little"
        size = bits // 8

        def plain(address: int) -> int:
            return int.from_bytes(ctypes.string_at(int(address), size), order, signed=bits == 64)  # type: ignore[arg-type]

        return plain

    @intrinsic
    def read(_typing: Any, address: Any) -> Any:
        def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            value = _load(builder, args[0], ir.IntType(bits))
            if big_endian:
                value = builder.bswap(value)
            return value if bits == 64 else builder.zext(value, ir.IntType(64))

        return types.int64(types.int64), emit

    return read


def _make_write(bits: int, big_endian: bool) -> Any:
    if jit_disabled():
        order = "big" if big_endian else "little"
        size = bits // 8

        def plain(address: int, value: int) -> None:
            word = (int(value) & ((1 << bits) - 1)).to_bytes(size, order)  # type: ignore[arg-type]
            ctypes.memmove(int(address), word, size)

        return plain

    @intrinsic
    def write(_typing: Any, address: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            kind = ir.IntType(bits)
            word = args[1] if bits == 64 else builder.trunc(args[1], kind)
            if big_endian:
                word = builder.bswap(word)
            builder.store(word, builder.inttoptr(args[0], kind.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), emit

    return write


read16, read32, read64 = (_make_read(bits, False) for bits in (16, 32, 64))
read16_be, read32_be, read64_be = (_make_read(bits, True) for bits in (16, 32, 64))
write16, write32, write64 = (_make_write(bits, False) for bits in (16, 32, 64))
write16_be, write32_be = (_make_write(bits, True) for bits in (16, 32))

if jit_disabled():

    def sum_blocks(address: int, blocks: int) -> int:
        """The sum of the little-endian 32-bit words in up to 2**25 blocks of BLOCK bytes."""
        data = ctypes.string_at(int(address), int(blocks) * BLOCK)
        return sum(memoryview(data).cast("I"))

else:

    @intrinsic
    def sum_blocks(_typing: Any, address: Any, blocks: Any) -> Any:
        """The sum of the little-endian 32-bit words in up to 2**25 blocks of BLOCK bytes.

        Four lanes of 64 bits, twice. Each lane adds whole 64-bit words and, apart, their upper halves; the
        lower halves' sum is what is left when the upper halves are taken out: three vector operations for 32
        bytes.
        """

        def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            i64 = ir.IntType(64)
            lanes = ir.VectorType(i64, 4)
            half = ir.Constant(lanes, [i64(32)] * 4)
            zero = ir.Constant(lanes, [i64(0)] * 4)
            cells = [cgutils.alloca_once(builder, lanes) for _ in range(4)]
            for cell in cells:
                builder.store(zero, cell)
            with cgutils.for_range(builder, args[1]) as loop:
                start = builder.add(args[0], builder.mul(loop.index, i64(BLOCK)))
                for part in range(2):
                    words = _load(builder, builder.add(start, i64(part * 32)), lanes)
                    whole, upper = cells[2 * part], cells[2 * part + 1]
                    builder.store(builder.add(builder.load(whole), words), whole)
                    builder.store(builder.add(builder.load(upper), builder.lshr(words, half)), upper)
            whole = builder.add(builder.load(cells[0]), builder.load(cells[2]))
            upper = builder.add(builder.load(cells[1]), builder.load(cells[3]))
            both = builder.add(builder.sub(whole, builder.shl(upper, half)), upper)
            total = i64(0)
            for lane in range(4):
                total = builder.add(total, builder.extract_element(both, ir.IntType(32)(lane)))
            return total

        return types.int64(types.int64, types.int64), emit
