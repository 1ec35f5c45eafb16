"""The one file that writes to SpikeInterface's registries."""

from __future__ import annotations

import importlib
import sys
from typing import NamedTuple


class Entry(NamedTuple):
    """One of our classes and its place in one of SpikeInterface's registries."""

    module: str  # SpikeInterface's module, registered as soon as it is imported
    registry: str  # the dictionary or list in it
    key: str
    ours: str  # "our.module:Class"


ENTRIES = (
    Entry("spikeinterface.sorters.sorterlist", "sorter_dict", "dlvolt", "dlvolt.sorter:DlvoltSorter"),
    Entry("spikeinterface.sorters.sorterlist", "sorter_full_list", "dlvolt", "dlvolt.sorter:DlvoltSorter"),
    Entry(
        "spikeinterface.sortingcomponents.matching.method_list",
        "matching_methods",
        "dlvolt",
        "dlvolt.matching:DlvoltMatching",
    ),
)


def register(module_name: str) -> None:
    """Add dlvolt's entries to one imported registry module of SpikeInterface.

    Parameters
    ----------
    module_name : str
        Full name of the module; must be in ``sys.modules``.
    """
    module = sys.modules[module_name]
    for entry in ENTRIES:
        if entry.module != module_name:
            continue
        our_module, our_name = entry.ours.split(":")
        ours = getattr(importlib.import_module(our_module), our_name)
        registry = getattr(module, entry.registry)
        if isinstance(registry, dict):
            registry[entry.key] = ours
        elif ours not in registry:
            registry.append(ours)
