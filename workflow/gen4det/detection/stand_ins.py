"""Stand-ins for packages that mmdet imports at once and needs only in parts that no detector here has.

To load them is three fifths of the seconds before a training begins. A part that wants one all the same says
so when it is made, instead of that the package is not installed.
"""

import contextlib
import sys
import types
from collections.abc import Iterator

_REFUSAL = "is not loaded: detectors here are run without the parts of mmdet that need it"


@contextlib.contextmanager
def standing_in(*names: str) -> Iterator[None]:
    """Inside the block modules of packages that are not loaded yet have every name that is asked for: a class
    that can be built upon, but neither made nor asked for anything.

    Args:
        names: of modules, each package before what is in it.
    """
    loaded = {name.partition(".")[0] for name in sys.modules}
    modules = {name: _StandIn(name) for name in names if name.partition(".")[0] not in loaded}
    for name, module in modules.items():
        package, _, part = name.rpartition(".")
        if package in modules:
            setattr(modules[package], part, module)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


class _StandIn(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _NotLoaded(name, (), {"__module__": self.__name__})


class _NotLoaded(type):
    def __call__(cls, *args, **kwargs):
        raise NotImplementedError(f"{_origin(cls)} {_REFUSAL}")

    def __getattr__(cls, name: str):
        raise AttributeError(name if name.startswith("__") else f"{_origin(cls)} {_REFUSAL}")


def _origin(cls: type) -> str:
    """Full name of the stand-in that a class is, or is built upon."""
    stand_in = next(it for it in reversed(cls.__mro__) if isinstance(it, _NotLoaded))
    return f"{stand_in.__module__}.{stand_in.__name__}"
