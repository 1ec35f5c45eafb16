"""Old import paths: code that imports modules from where they were goes on working, with a warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {  # old name of a module: new name; also for modules in it
    "dlvolt.calcium": "dlvolt.rois.calcium",
    "dlvolt.clustering": "dlvolt.electrodes.clustering",
    "dlvolt.detection.classify": "dlvolt.electrodes.classify",
    "dlvolt.detection.crosstalk": "dlvolt.rois.crosstalk",
    "dlvolt.detection.event_labels": "dlvolt.rois.event_labels",
    "dlvolt.detection.matched_filter": "dlvolt.electrodes.matched_filter",
    "dlvolt.detection.rate_spikes": "dlvolt.rois.rate_spikes",
    "dlvolt.learning": "dlvolt.electrodes.learning",
    "dlvolt.matching": "dlvolt.electrodes.matching",
    "dlvolt.motion": "dlvolt.electrodes.motion",
    "dlvolt.optical": "dlvolt.rois.recipe",
    "dlvolt.preprocessing.survey": "dlvolt.rois.survey",
    "dlvolt.refractory": "dlvolt.electrodes.refractory",
}

NAMES = {  # old name of a function or class: new name
    "dlvolt.detection.Crosstalk": "dlvolt.rois.Crosstalk",
    "dlvolt.detection.MatchedFilterPeakDetector": "dlvolt.electrodes.MatchedFilterPeakDetector",
    "dlvolt.detection.SpikeProbabilityOfPeaks": "dlvolt.electrodes.SpikeProbabilityOfPeaks",
    "dlvolt.detection.check_peak_model": "dlvolt.electrodes.check_peak_model",
    "dlvolt.detection.classify_peaks": "dlvolt.electrodes.classify_peaks",
    "dlvolt.detection.find_prototype": "dlvolt.electrodes.find_prototype",
    "dlvolt.detection.find_snippets": "dlvolt.electrodes.find_snippets",
    "dlvolt.detection.flag_crosstalk": "dlvolt.rois.flag_crosstalk",
    "dlvolt.detection.label_events": "dlvolt.rois.label_events",
    "dlvolt.detection.neighbouring_pairs": "dlvolt.rois.neighbouring_pairs",
    "dlvolt.detection.rate_spikes": "dlvolt.rois.rate_spikes",
    "dlvolt.sorter.sort": "dlvolt.electrodes.sort_electrodes",
}


class MovedFinder(Loader):
    """Meta path finder and loader that gives the moved module for an old name."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for old names only."""
        return ModuleSpec(name, self) if new_name(name) else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Let the import system make an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Replace the empty module by the moved one."""
        old = module.__name__
        new = new_name(old)
        assert new is not None  # as `find_spec` answers for old names only
        warnings.warn(f"{old} has moved to {new}; the old name will go", DeprecationWarning, stacklevel=2)
        sys.modules[old] = import_module(new)


def new_name(name: str) -> str | None:
    """Return the new name of a module, or None if it has not moved."""
    if not name.startswith("dlvolt."):  # most names that are imported: answered at once
        return None
    return next((new + name[len(old) :] for old, new in MOVED.items() if f"{name}.".startswith(f"{old}.")), None)


def attribute(module: str, name: str) -> Any:
    """Return what an old name of a module now is, for the module's ``__getattr__``.

    Raises
    ------
    AttributeError
        If the module never had this name.
    """
    old = f"{module}.{name}"
    if old in NAMES:
        where, _, new = NAMES[old].rpartition(".")
        warnings.warn(f"{old} has moved to {NAMES[old]}; the old name will go", DeprecationWarning, stacklevel=3)
        return getattr(import_module(where), new)
    if old in MOVED:
        return import_module(old)
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def install() -> None:
    """Install the finder of old names, once."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedFinder())  # first: others would import the parts of a moved package a second time
