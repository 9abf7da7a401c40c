"""Records at an address, for compiled loops: what a pointer to a struct is in C.

An array that is passed around costs seven machine words in each call, and much time to compile; its address
costs one.
"""

import ctypes
from typing import Any

import numpy as np
from numba import from_dtype, types
from numba.extending import intrinsic

from vfwire.memory.compiled import jit_disabled


def record_at(dtype: np.dtype[Any]) -> Any:
    """A function for compiled code: address -> the record of `dtype` that lies there (a reference, not a
    copy).

    The memory must stay alive elsewhere. Index arrays of records by `address + i * dtype.itemsize`.
    """
    if jit_disabled():
        size = dtype.itemsize

        def plain(address: int) -> Any:
            raw: Any = (ctypes.c_char * size).from_address(int(address))
            return np.frombuffer(raw, dtype).view(np.recarray)[0]

        return plain

    record = from_dtype(dtype)

    @intrinsic
    def at(_typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(record))

        return record(types.int64), emit

    return at
