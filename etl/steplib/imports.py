"""What scikit-learn imports and the scripts do not use: half of its start-up."""

import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any

STATISTICS = "scipy.stats"
# What scikit-learn's modules import from it by name when they are imported themselves.
IMPORTED_BY_NAME = {"chi2", "gmean", "rankdata", "spearmanr"}
_lock = RLock()


def keep_out() -> None:
    """Hide pandas, and execute scipy.stats only when something of it is used."""
    sys.meta_path.insert(0, _Finder)


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find no pandas, and a scipy.stats that waits; leave all else to the other finders."""
        if name == "pandas":
            raise ModuleNotFoundError(name=name)
        spec = PathFinder.find_spec(name, path, target) if name == STATISTICS else None
        if spec and spec.loader:
            spec.loader = _Later(spec.loader)
        return spec


class _Later(Loader):
    """Wraps a loader, so that a module is executed when one of its names is used."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Waiting


class _Waiting(ModuleType):
    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        # The import system asks for these.
        if name.startswith("__"):
            raise AttributeError(name)
        return _Used(self, name) if name in IMPORTED_BY_NAME else _of_module(self, name)


class _Used:
    """Something of a waiting module, which is executed once this is called or asked for an attribute."""

    def __init__(self, module: ModuleType, name: str) -> None:
        self._place = module, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return _of_module(*self._place)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(_of_module(*self._place), name)


def _of_module(module: ModuleType, name: str) -> Any:  # noqa: ANN401
    """Execute a module, unless it has been, and return what it has under a name."""
    loader = module.__spec__ and module.__spec__.loader
    with _lock:
        if isinstance(loader, _Later) and type(module) is not ModuleType:
            module.__class__ = ModuleType
            loader.loader.exec_module(module)
    return getattr(module, name)
