"""Pieces of a compiled loop, linked once: what keeps a fresh machine's first compilation short.

Numba optimizes and generates machine code for every function by itself, and again for each caller that it is linked
into: a loop made of sixty small functions, nested eight deep, was compiled for a minute (most of it machine code that
nothing ran). A fragment is lowered to LLVM's form and left there; the entry point that uses it links every fragment
below it once and optimizes the whole. Nothing else changes: the same code is inlined as before.
"""

import ctypes
from typing import Any

from numba.core import codegen, compiler
from numba.core.types.misc import unliteral

# What Python meets when it calls a fragment, of which there is no machine code. PyObject_Call has the form of a
# function's entry and raises TypeError here, since what it is handed cannot be called; address 0 would be a crash.
_NOT_CALLABLE = ctypes.cast(ctypes.pythonapi.PyObject_Call, ctypes.c_void_p).value or 0


class _WithoutEnvironment:
    """A code generator as a fragment's library shows it: there is no machine code to tell its environment."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def set_env(self, name: str, environment: Any) -> None:
        """Nothing: only code that raises or prints looks at it, and a fragment does neither."""


class FragmentLibrary(codegen.JITCodeLibrary):  # type: ignore[misc]
    """LLVM form without machine code, for linking into an entry point only."""

    @property
    def codegen(self) -> Any:
        return _WithoutEnvironment(self._codegen)

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return _NOT_CALLABLE

    def finalize(self) -> None:
        self._raise_if_finalized()
        self._finalize_dynamic_globals()
        self._finalized = True

    def add_llvm_module(self, ll_module: Any) -> None:
        self._final_module.link_in(ll_module)


class EntryLibrary(codegen.JITCodeLibrary):  # type: ignore[misc]
    """Links the fragments below it, each once, before it is optimized."""

    _linking_libraries: Any

    def finalize(self) -> None:
        pending: list[Any] = list(self._linking_libraries)
        found: list[Any] = []
        while pending:
            library = pending.pop()
            if library not in found:
                found.append(library)
                if isinstance(library, FragmentLibrary):
                    pending.extend(library._linking_libraries)
        self._linking_libraries = found
        super().finalize()


class _Pipeline(compiler.Compiler):  # type: ignore[misc]
    library_class: Any

    def __init__(self, typing: Any, target: Any, library: Any, *rest: Any) -> None:
        super().__init__(typing, target, library, *rest)

    def _compile_bytecode(self) -> Any:
        state = self.state
        if state.library is None:
            state.library = self.library_class(state.targetctx.codegen(), state.func_id.func_qualname)
            state.library.enable_object_caching()
        return super()._compile_bytecode()


class FragmentPipeline(_Pipeline):
    library_class = FragmentLibrary


class EntryPipeline(_Pipeline):
    library_class = EntryLibrary


def compile_once(dispatcher: Any) -> None:
    """Keep Numba from compiling a function anew for each constant that it is called with.

    LLVM sees the constants again when it inlines; only the time to compile is spared.
    """
    by_types = dispatcher.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:
        plain = tuple(unliteral(argument) for argument in args)
        return by_types(plain, {name: unliteral(argument) for name, argument in kws.items()})

    dispatcher.get_call_template = get_call_template
