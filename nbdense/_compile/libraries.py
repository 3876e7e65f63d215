"""Libraries of machine code: numba's, but that an entry is optimised and assembled once, with all kernels in it."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from numba.core import codegen, config


class KernelLibrary(codegen.JITCodeLibrary):
    """A kernel's LLVM module, kept as it was lowered, without those of its callees.

    Numba optimises and assembles the library of every function, callees included, so a kernel five calls below
    its entry would be compiled five times, and once more for Python, which never calls it. Here only entries are, and
    they link each kernel once.
    """

    _shared_module: Any
    _linking_libraries: list[Any]

    def _optimize_functions(self, ll_module: Any) -> None:
        pass

    def finalize(self) -> None:
        self._raise_if_finalized()
        self._finalize_dynamic_globals()
        self._finalized = True

    def own_module(self) -> Any:
        """Return the kernel's own module."""
        self._ensure_finalized()
        return self._final_module

    def _get_module_for_linking(self) -> Any:
        """Return a module of the kernel and all that it calls, for libraries that are numba's own."""
        if self._shared_module is None:
            self._ensure_finalized()
            self._shared_module = self._final_module.clone()
            _link(self._shared_module, self._linking_libraries)
            for function in _defined(self._shared_module):
                function.linkage = "linkonce_odr"
        return self._shared_module

    def get_llvm_str(self) -> str:
        return str(self._get_module_for_linking())

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """Do nothing: a nopython kernel's environment is never read."""


class EntryLibrary(codegen.JITCodeLibrary):
    """The machine code of an entry or a unit, with that of the kernels in it."""

    _codegen: Any
    _final_module: Any
    _linking_libraries: list[Any]

    def finalize(self) -> None:
        libraries = _link(self._final_module, self._linking_libraries)
        if hasattr(self, "_reload_init"):  # numba 0.62 has none
            for library in libraries:
                self._reload_init.update(library._reload_init)
        self._linking_libraries = []
        super().finalize()

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout  # numba would optimise each function by itself first

    def _optimize_final_module(self) -> None:
        """Optimise the module once: numba would twice, to prune references in between, which kernels do not count.

        Loops are not unrolled: the vectors of those that matter are, or their tiles, and what is left is a quarter less
        to assemble.
        """
        options = llvm.create_pipeline_tuning_options(speed_level=int(config.OPT))
        options.loop_vectorization, options.slp_vectorization = bool(config.LOOP_VECTORIZE), bool(config.SLP_VECTORIZE)
        options.loop_unrolling = False
        builder = llvm.create_pass_builder(self._codegen._tm, options)
        builder.getModulePassManager().run(self._final_module, builder)


def _link(module: Any, libraries: list[Any]) -> list[Any]:
    """Link libraries, and what kernels among them call, into a module, each once; returns them.

    What is linked may be inlined and left out, but only then: LLVM does not link at all what nothing refers to yet.
    """
    found: dict[Any, None] = {}
    exported = {function.name for function in _defined(module)}
    left = list(libraries)
    while left:
        library = left.pop()
        if library not in found:
            found[library] = None
            is_kernel = isinstance(library, KernelLibrary)
            module.link_in(library.own_module() if is_kernel else library._get_module_for_linking(), preserve=True)
            left += library._linking_libraries if is_kernel else []
    for function in _defined(module):
        if function.name not in exported:
            function.linkage = "linkonce_odr"
    return list(found)


def _defined(module: Any) -> list[Any]:
    """Return the functions that a module defines for others."""
    external = llvm.Linkage.external
    return [one for one in module.functions if not one.is_declaration and one.linkage == external]
