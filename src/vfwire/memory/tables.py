"""Many arrays as one argument: what compiled code gets instead of a tuple of arrays.

Numba passes an array as seven words, a tuple of fifteen as a hundred, and does so at every call of every function
that takes it: that is slow to run and slower to compile. Here a compiled function gets one address, that of a list of
base addresses, and `state.name[i]` becomes a load and an addition. The same expression on the Python object is plain
NumPy, so the loops run uncompiled too.

A table is a one-dimensional array of records, or an int64 array of one or two dimensions, C-contiguous.
Indexes are not checked, as with Numba's arrays: the caller has.
"""

import functools
import operator
from typing import Any, ClassVar

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import (
    AbstractTemplate,
    AttributeTemplate,
    infer_getattr,
    infer_global,
    signature,
)
from numba.extending import (
    NativeValue,
    lower_builtin,
    lower_getattr_generic,
    models,
    register_model,
    typeof_impl,
    unbox,
)
from numba.np.numpy_support import from_dtype

_I64 = ir.IntType(64)


class Tables:
    """Base of the objects. `columns` maps a field to its dtype, and to a row's length if there are two dimensions."""

    columns: ClassVar[dict[str, tuple[np.dtype[Any], int]]] = {}

    def publish(self) -> None:
        """Write down where the arrays lie; call it once, when all are there. They must not be replaced afterwards."""
        self.bases = np.array([getattr(self, name).ctypes.data for name in self.columns], np.int64)
        self.bases_address = int(self.bases.ctypes.data)


class TableType(types.Type):  # type: ignore[misc]
    def __init__(self, element: Any, stride: int, row: int) -> None:
        self.element, self.stride, self.row = element, stride, row
        super().__init__(name=f"table({element}, {stride}, {row})")


class TablesType(types.Type):  # type: ignore[misc]
    def __init__(self, owner: type[Tables]) -> None:
        self.order = list(owner.columns)
        self.tables = {
            name: TableType(from_dtype(dtype), dtype.itemsize, row)
            for name, (dtype, row) in owner.columns.items()
        }
        super().__init__(name=f"tables({owner.__module__}.{owner.__qualname__})")


class _AddressModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _I64)


register_model(TableType)(_AddressModel)
register_model(TablesType)(_AddressModel)


@typeof_impl.register(Tables)
def _typeof(value: Tables, _context: Any) -> TablesType:
    return _type_of(type(value))  # type: ignore[arg-type]


@functools.cache
def _type_of(owner: type[Tables]) -> TablesType:
    """Asked for at each call from Python, and 2 ms to make."""
    return TablesType(owner)


@unbox(TablesType)
def _unbox(_kind: Any, value: Any, context: Any) -> NativeValue:
    attribute = context.pyapi.object_getattr_string(value, "bases_address")
    address = context.pyapi.long_as_longlong(attribute)
    context.pyapi.decref(attribute)
    return NativeValue(address)


@infer_getattr
class _TablesAttribute(AttributeTemplate):  # type: ignore[misc]
    key = TablesType

    def generic_resolve(self, kind: TablesType, name: str) -> Any:
        return kind.tables.get(name)


def _load(builder: Any, address: Any, *, constant: bool = False) -> Any:
    value = builder.load(builder.inttoptr(address, _I64.as_pointer()))
    if constant:
        value.set_metadata("invariant.load", builder.module.add_metadata([]))
    return value


@lower_getattr_generic(TablesType)
def _base_of(_context: Any, builder: Any, kind: TablesType, value: Any, name: str) -> Any:
    offset = _I64(kind.order.index(name) * 8)
    return _load(builder, builder.add(value, offset), constant=True)


def _after_index(table: TableType, index: Any) -> Any:
    """The type of table[index], or None where that is no element or row."""
    if isinstance(index, types.Integer):
        return TableType(table.element, table.stride, 0) if table.row else table.element
    if isinstance(index, types.BaseTuple) and len(index) == 2 and table.row:
        return table.element
    return None


@infer_global(operator.getitem)
class _Get(AbstractTemplate):  # type: ignore[misc]
    def generic(self, arguments: Any, keywords: Any) -> Any:
        if len(arguments) == 2 and isinstance(arguments[0], TableType):
            result = _after_index(*arguments)
            if result is not None:
                tuple_index = isinstance(arguments[1], types.BaseTuple)
                index = types.UniTuple(types.int64, 2) if tuple_index else types.int64
                return signature(result, arguments[0], index)
        return None


@infer_global(operator.setitem)
class _Set(AbstractTemplate):  # type: ignore[misc]
    def generic(self, arguments: Any, keywords: Any) -> Any:
        if len(arguments) == 3 and isinstance(arguments[0], TableType):
            tuple_index = isinstance(arguments[1], types.BaseTuple)
            index = types.UniTuple(types.int64, 2) if tuple_index else types.int64
            return signature(types.none, arguments[0], index, types.int64)
        return None


def _place(builder: Any, table: TableType, base: Any, index: Any, *, pair: bool) -> Any:
    if pair:
        row, column = builder.extract_value(index, 0), builder.extract_value(index, 1)
        index = builder.add(builder.mul(row, _I64(table.row)), column)
        return builder.add(base, builder.mul(index, _I64(table.stride)))
    return builder.add(base, builder.mul(index, _I64(table.stride * (table.row or 1))))


def _get(context: Any, builder: Any, sig: Any, arguments: Any, *, pair: bool) -> Any:
    address = _place(builder, sig.args[0], *arguments, pair=pair)
    if isinstance(sig.return_type, TableType):
        return address
    if isinstance(sig.return_type, types.Record):
        return builder.inttoptr(address, context.get_value_type(sig.return_type))
    return _load(builder, address)


def _set(context: Any, builder: Any, sig: Any, arguments: Any, *, pair: bool) -> Any:
    base, index, value = arguments
    address = _place(builder, sig.args[0], base, index, pair=pair)
    builder.store(value, builder.inttoptr(address, _I64.as_pointer()))
    return context.get_dummy_value()


@lower_builtin(operator.getitem, TableType, types.Integer)
def _get_one(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    return _get(context, builder, sig, arguments, pair=False)


@lower_builtin(operator.getitem, TableType, types.UniTuple)
def _get_pair(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    return _get(context, builder, sig, arguments, pair=True)


@lower_builtin(operator.setitem, TableType, types.Integer, types.Integer)
def _set_one(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    return _set(context, builder, sig, arguments, pair=False)


@lower_builtin(operator.setitem, TableType, types.UniTuple, types.Integer)
def _set_pair(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    return _set(context, builder, sig, arguments, pair=True)
