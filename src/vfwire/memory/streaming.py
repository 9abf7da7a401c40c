"""Stores that pass the caches by: for lines of a burst which another core reads later, or holds now.

A plain store to a line that the other core has read waits until that core has let go of it, however early the line
is asked for; a streaming store of the whole line does not. The reader then waits for memory, so only what is read with
some lines under way gains: not a lone frame, and not descriptors.

Streaming stores keep no order among themselves or with others: `stream_fence` has to stand between them and the
store that tells the other side. A line is written whole, front to back.
"""

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from vfwire.memory.compiled import jit_disabled
from vfwire.memory.words import copy, store64

LINE = 64
_X86 = platform.machine() in ("x86_64", "AMD64")

if jit_disabled():

    def stream64(address: int, value: int) -> None:
        """Store a little-endian 64-bit word at an aligned address."""
        store64(address, value)

    def stream_line(to: int, source: int) -> None:
        """Copy LINE bytes from any address to the start of a line."""
        copy(to, source, LINE)

    def stream_fence() -> None:
        """Whoever sees a store from here on sees all streaming stores before."""

else:

    def _store(builder: Any, value: Any, address: Any, alignment: int) -> None:
        instruction = builder.store(
            value, builder.inttoptr(address, value.type.as_pointer()), align=alignment
        )
        instruction.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))

    @intrinsic
    def stream64(_typing: Any, address: Any, value: Any) -> Any:
        """Store a little-endian 64-bit word at an aligned address."""

        def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            _store(builder, args[1], args[0], 8)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), emit

    @intrinsic
    def stream_line(_typing: Any, to: Any, source: Any) -> Any:
        """Copy LINE bytes from any address to the start of a line."""

        def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            half = ir.VectorType(ir.IntType(64), 4)
            for at in (0, LINE // 2):
                offset = ir.IntType(64)(at)
                source = builder.inttoptr(builder.add(args[1], offset), half.as_pointer())
                _store(builder, builder.load(source, align=1), builder.add(args[0], offset), LINE // 2)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), emit

    @intrinsic
    def stream_fence(_typing: Any) -> Any:
        """Whoever sees a store from here on sees all streaming stores before."""

        def emit(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
            if _X86:  # where LLVM's own fences leave streaming stores out
                kind = ir.FunctionType(ir.VoidType(), [])
                builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.sfence"), [])
            else:
                builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.void(), emit
