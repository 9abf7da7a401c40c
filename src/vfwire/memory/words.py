"""Words that two sides share, and copies between them: the only way compiled loops touch memory by address.

Every address is a plain int (a process's own virtual address). Loads are atomic with acquire order, stores
atomic with release order: one access, never torn, hoisted, merged or done twice. That holds for memory that a
guest may change at any moment (a value is fetched once, then checked, then used) as for a tail that the other side
polls. Little-endian machines only, as are all the layouts.

Values are signed: a word with its top bit set reads as a negative number; mask what you shift right.
Under NUMBA_DISABLE_JIT=1 the same names are plain Python, so that coverage can see through.
"""

import ctypes
import os
import platform
import threading
import time
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from vfwire.memory.compiled import jit_disabled

_PLAIN_STEP = threading.Lock()  # plain Python reads and writes in two steps: no store may come in between
_PLAIN: dict[int, Any] = {8: ctypes.c_uint8, 16: ctypes.c_uint16, 32: ctypes.c_uint32, 64: ctypes.c_int64}


def _pointer(builder: Any, address: Any, bits: int) -> Any:
    return builder.inttoptr(address, ir.IntType(bits).as_pointer())


def _make_load(bits: int) -> Any:
    if jit_disabled():
        return lambda address: int(_PLAIN[bits].from_address(int(address)).value)

    @intrinsic
    def load(_typing: Any, address: Any) -> Any:
        def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            value = builder.load_atomic(_pointer(builder, args[0], bits), "acquire", bits // 8)
            return value if bits == 64 else builder.zext(value, ir.IntType(64))

        return types.int64(types.int64), emit

    return load


def _make_store(bits: int) -> Any:
    if jit_disabled():

        def plain(address: int, value: int) -> None:
            word = int(value) & ((1 << bits) - 1)
            with _PLAIN_STEP:
                _PLAIN[bits].from_address(int(address)).value = word - (1 << 64) if word >> 63 else word

        return plain

    @intrinsic
    def store(_typing: Any, address: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            word = args[1] if bits == 64 else builder.trunc(args[1], ir.IntType(bits))
            builder.store_atomic(word, _pointer(builder, args[0], bits), "release", bits // 8)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), emit

    return store


def _make_read_modify_write(operation: str) -> Any:
    if jit_disabled():

        def plain(address: int, value: int) -> int:
            cell = ctypes.c_int64.from_address(int(address))
            with _PLAIN_STEP:
                old, word = int(cell.value), int(value)
                cell.value = {"xchg": word, "or": old | word, "and": old & word, "add": old + word}[operation]
            return old

        return plain

    @intrinsic
    def change(_typing: Any, address: Any, value: Any) -> Any:
        def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.atomic_rmw(operation, _pointer(builder, args[0], 64), args[1], "seq_cst")

        return types.int64(types.int64, types.int64), emit

    return change


def _make_compare_exchange() -> Any:
    if jit_disabled():

        def plain(address: int, expected: int, value: int) -> int:
            cell = ctypes.c_int64.from_address(int(address))
            with _PLAIN_STEP:
                old = int(cell.value)
                if old == expected:
                    cell.value = int(value)
            return old

        return plain

    @intrinsic
    def change(_typing: Any, address: Any, expected: Any, value: Any) -> Any:
        def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            pointer = _pointer(builder, args[0], 64)
            done = builder.cmpxchg(pointer, args[1], args[2], "seq_cst", "seq_cst")
            return builder.extract_value(done, 0)

        return types.int64(types.int64, types.int64, types.int64), emit

    return change


load8, load16, load32, load64 = (_make_load(bits) for bits in (8, 16, 32, 64))
store8, store16, store32, store64 = (_make_store(bits) for bits in (8, 16, 32, 64))
exchange64 = _make_read_modify_write("xchg")  # returns the old value, as do the next three
fetch_or64 = _make_read_modify_write("or")
fetch_and64 = _make_read_modify_write("and")
fetch_add64 = _make_read_modify_write("add")
compare_exchange64 = _make_compare_exchange()  # (address, expected, value): stored only where `expected` was

if jit_disabled():

    def copy(to: int, source: int, count: int) -> None:
        """Copy `count` bytes; the two ranges must not overlap."""
        ctypes.memmove(int(to), int(source), int(count))

    def fence() -> None:
        """A full fence. Plain Python has none of its own; an atomic exchange inside the interpreter lock does."""

    def prefetch(address: int) -> None:
        """Bring a cache line near, for reading. Any address will do, mapped or not."""

    def prefetch_write(address: int) -> None:
        """Bring a cache line near, for writing: away from any other core. Any address will do."""

    def clock_ns() -> int:
        """CLOCK_MONOTONIC in nanoseconds."""
        return time.monotonic_ns()

    def yield_core() -> None:
        """Let another process have this core (sched_yield)."""
        os.sched_yield()

    def relax_core() -> None:
        """A short rest in a loop that looks at memory, for what shares the core's execution units."""

    def want_idle_cores_only() -> int:
        """Have the calling thread run where no other wants to (sched(7), SCHED_IDLE); 0 when that was granted."""
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        return 0

    def signal_eventfd(fd: int) -> None:
        """Add 1 to an eventfd; an error (a closed or full one) is ignored, as a lost edge on a wire is."""
        try:
            os.write(int(fd), (1).to_bytes(8, "little"))
        except OSError:
            return

    def drain_eventfd(fd: int) -> None:
        """Take an eventfd back to 0. It must be non-blocking."""
        try:
            os.read(int(fd), 8)
        except OSError:
            return

    def wait_fds(address: int, count: int, timeout_ns: int) -> int:
        """ppoll(2) on `count` struct pollfd at `address`, for less than a second; returns how many are ready."""
        timespec = (ctypes.c_long * 2)(0, int(timeout_ns))
        return int(_libc_ppoll(int(address), int(count), timespec, None))

    _libc_ppoll: Any = ctypes.CDLL(None).ppoll
    _libc_ppoll.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p]

else:

    @intrinsic
    def copy(_typing: Any, to: Any, source: Any, count: Any) -> Any:
        """Copy `count` bytes; the two ranges must not overlap."""

        def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            cgutils.raw_memcpy(
                builder, _pointer(builder, args[0], 8), _pointer(builder, args[1], 8), args[2], 1
            )
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), emit

    @intrinsic
    def fence(_typing: Any) -> Any:
        """A full fence: what Xen's push-then-check-notify needs (ring.h, RING_PUSH_*_AND_CHECK_NOTIFY)."""

        def emit(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
            builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.void(), emit

    @intrinsic
    def relax_core(_typing: Any) -> Any:
        """A short rest in a loop that looks at memory, for what shares the core's execution units (x86 PAUSE)."""

        def emit(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
            if platform.machine() == "x86_64":
                rest = ir.FunctionType(ir.VoidType(), [])
                builder.call(cgutils.get_or_insert_function(builder.module, rest, "llvm.x86.sse2.pause"), [])
            return context.get_dummy_value()

        return types.void(), emit

    def _make_prefetch(write: int) -> Any:
        @intrinsic
        def bring(_typing: Any, address: Any) -> Any:
            def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
                i32, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
                function = cgutils.get_or_insert_function(
                    builder.module,
                    ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32]),
                    "llvm.prefetch.p0",
                )
                builder.call(function, [_pointer(builder, args[0], 8), i32(write), i32(3), i32(1)])
                return context.get_dummy_value()

            return types.void(types.int64), emit

        return bring

    prefetch = _make_prefetch(0)  # bring a cache line near, for reading; any address will do, mapped or not
    prefetch_write = _make_prefetch(1)  # the same for writing: away from any other core

    @intrinsic
    def clock_ns(_typing: Any) -> Any:
        """CLOCK_MONOTONIC in nanoseconds (through the vDSO: no system call)."""

        def emit(_context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
            i64 = ir.IntType(64)
            timespec = cgutils.alloca_once(builder, ir.ArrayType(i64, 2))
            pointer = builder.bitcast(timespec, i64.as_pointer())
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(ir.IntType(32), [ir.IntType(32), i64.as_pointer()]),
                "clock_gettime",
            )
            builder.call(function, [ir.IntType(32)(time.CLOCK_MONOTONIC), pointer])
            seconds = builder.load(pointer)
            rest = builder.load(builder.gep(pointer, [ir.IntType(32)(1)]))
            return builder.add(builder.mul(seconds, i64(1_000_000_000)), rest)

        return types.int64(), emit

    _ONE = 1
    _sched_yield = types.ExternalFunction("sched_yield", types.int32())
    _sched_setscheduler = types.ExternalFunction(
        "sched_setscheduler", types.int32(types.int32, types.int32, types.int64)
    )
    _eventfd_write = types.ExternalFunction("eventfd_write", types.int32(types.int32, types.int64))
    _eventfd_read = types.ExternalFunction("eventfd_read", types.int32(types.int32, types.int64))
    _ppoll = types.ExternalFunction("ppoll", types.int32(types.int64, types.int64, types.int64, types.int64))

    from vfwire.memory.compiled import inlined

    @inlined
    def yield_core() -> None:
        """Let another process have this core (sched_yield)."""
        _sched_yield()

    @inlined
    def signal_eventfd(fd: int) -> None:
        """Add 1 to an eventfd; an error (a closed or full one) is ignored, as a lost edge on a wire is."""
        _eventfd_write(fd, _ONE)

    @intrinsic
    def _scratch(_typing: Any) -> Any:
        def emit(_context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
            words = cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(64), 2))
            return builder.ptrtoint(words, ir.IntType(64))

        return types.int64(), emit

    @inlined
    def want_idle_cores_only() -> int:
        """Have the calling thread run where no other wants to (sched(7), SCHED_IDLE); 0 when that was granted."""
        parameters = _scratch()  # struct sched_param: its priority, which is 0
        store64(parameters, 0)
        return _sched_setscheduler(0, os.SCHED_IDLE, parameters)  # type: ignore[no-any-return]

    @inlined
    def drain_eventfd(fd: int) -> None:
        """Take an eventfd back to 0. It must be non-blocking."""
        _eventfd_read(fd, _scratch())

    @inlined
    def wait_fds(address: int, count: int, timeout_ns: int) -> int:
        """ppoll(2) on `count` struct pollfd at `address`, for less than a second; returns how many are ready."""
        timespec = _scratch()
        store64(timespec, 0)
        store64(timespec + 8, timeout_ns)
        return _ppoll(address, count, timespec, 0)  # type: ignore[no-any-return]
