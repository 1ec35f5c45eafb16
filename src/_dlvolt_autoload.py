"""Tell SpikeInterface about dlvolt in every Python process.

SpikeInterface keeps its sorters and components in module-level dictionaries and has no entry points, so a worker
process that imports only SpikeInterface would not know ``"dlvolt"``. So a ``.pth`` file calls `install_unless_off` when
the interpreter starts, which puts a finder on ``sys.meta_path``. The finder waits until SpikeInterface imports one of
the modules named here, and then adds dlvolt's entries to it. Nothing but this small file is loaded before that. The
environment variable ``DLVOLT_AUTOLOAD=0`` switches it off.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers know this name; typing, which has it, is slow to import
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

REGISTRY_MODULES = frozenset(
    {
        "spikeinterface.sorters.sorterlist",
        "spikeinterface.preprocessing.preprocessing_classes",
        "spikeinterface.preprocessing.pipeline",
        "spikeinterface.sortingcomponents.peak_detection.method_list",
        "spikeinterface.sortingcomponents.matching.method_list",
        "spikeinterface.sortingcomponents.clustering.method_list",
    }
)


class RegistrationFinder:
    """Meta path finder: lets the real loader run a registry module or one of ours, then registers dlvolt."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the other finders give, its loader extended by the registration."""
        if name not in REGISTRY_MODULES and not name.startswith("dlvolt."):
            return None
        finders = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in finders)), None)
        if spec is not None and spec.loader is not None:
            exec_module = spec.loader.exec_module

            def exec_module_and_register(module: ModuleType) -> None:
                exec_module(module)
                register(module.__name__)

            spec.loader.exec_module = exec_module_and_register  # type: ignore[method-assign]  # of this loader only
        return spec


def register(module_name: str) -> None:
    """Make dlvolt's entries for a module that has just been imported; warn, never raise, if that fails."""
    try:
        from dlvolt.registration import register

        register(module_name)
    except Exception as error:  # somebody else's import must not fail because of us
        import warnings

        warnings.warn(f"dlvolt could not register itself with {module_name}: {error!r}", stacklevel=2)


def install() -> None:
    """Install the finder once, and register in the modules that are imported already."""
    if not any(isinstance(finder, RegistrationFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, RegistrationFinder())
        for module_name in REGISTRY_MODULES.intersection(sys.modules):
            register(module_name)


def install_unless_off() -> None:
    """Install at interpreter start, unless ``DLVOLT_AUTOLOAD=0``."""
    if os.environ.get("DLVOLT_AUTOLOAD") != "0":
        install()
