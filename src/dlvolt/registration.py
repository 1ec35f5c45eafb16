"""The one file that writes to SpikeInterface's registries."""

from __future__ import annotations

import sys
from pkgutil import resolve_name
from typing import NamedTuple


class Entry(NamedTuple):
    """One of our objects and its place in one of SpikeInterface's registries."""

    module: str  # SpikeInterface's module; the entry is made as soon as this is imported
    registry: str  # the dictionary or list in that module
    key: str  # a name, or an object of ours as "module:object"; for a list, just a label
    ours: str  # the object, "module:object"


SORTERS = "spikeinterface.sorters.sorterlist"
PREPROCESSORS = "spikeinterface.preprocessing.preprocessing_classes"
PIPELINE = "spikeinterface.preprocessing.pipeline"
DETECTION = "spikeinterface.sortingcomponents.peak_detection.method_list"
MATCHING = "spikeinterface.sortingcomponents.matching.method_list"
CLUSTERING = "spikeinterface.sortingcomponents.clustering.method_list"

ENTRIES = [
    Entry(SORTERS, "sorter_dict", "dlvolt", "dlvolt.sorter:DlvoltSorter"),
    Entry(SORTERS, "sorter_full_list", "dlvolt", "dlvolt.sorter:DlvoltSorter"),
    Entry(DETECTION, "detect_peak_methods", "dlvolt", "dlvolt.detection.network:NetworkPeakDetector"),
    Entry(DETECTION, "detect_peak_methods", "dlvolt-adaptive", "dlvolt.detection.adaptive:AdaptivePeakDetector"),
    Entry(MATCHING, "matching_methods", "dlvolt", "dlvolt.electrodes.matching:DlvoltMatching"),
    Entry(CLUSTERING, "clustering_methods", "dlvolt-dbscan", "dlvolt.electrodes.clustering.dbscan:DbscanClustering"),
]
for class_name, function_name in (
    ("DeltaFOverFRecording", "delta_f_over_f"),
    ("FeatureChannelsRecording", "feature_channels"),
    ("FillNanRecording", "fill_nan"),
    ("HighpassReferenceRecording", "highpass_reference"),
    ("MelSpectrogramRecording", "mel_spectrogram"),
    ("NotchCombRecording", "notch_comb"),
    ("SpikeProbabilityRecording", "spike_probability"),
    ("SpikeRateRecording", "spike_rate"),
    ("SteadyNoiseRecording", "steady_noise"),
    ("SubthresholdRecording", "subthreshold"),
    ("WhitenNoiseRecording", "whiten_noise"),
):
    our_class = f"dlvolt.preprocessing.{function_name}:{class_name}"
    our_function = f"dlvolt.preprocessing.{function_name}:{function_name}"
    ENTRIES += [
        Entry(PREPROCESSORS, "_all_preprocesser_dict", our_class, our_function),
        Entry(PREPROCESSORS, "preprocessor_dict", class_name, our_function),
        Entry(PIPELINE, "pp_names_to_functions", function_name, our_function),
    ]


def register(module_name: str) -> None:
    """Make dlvolt's entries for a module that has just been imported.

    An entry is made when the registry exists and our object, if its module is being imported, is there.

    Parameters
    ----------
    module_name : str
        Full name of a registry module of SpikeInterface or of a module of ours; must be in ``sys.modules``.
    """
    for entry in ENTRIES:
        our_module, our_name = entry.ours.split(":")
        if module_name == entry.module:
            if our_module in sys.modules and not hasattr(sys.modules[our_module], our_name):
                continue  # our module is being imported, and `register` is called again when that is done
        elif module_name != our_module or not hasattr(sys.modules.get(entry.module), entry.registry):
            continue
        registry = getattr(sys.modules[entry.module], entry.registry)
        ours = resolve_name(entry.ours)
        if isinstance(registry, dict):
            registry[resolve_name(entry.key) if ":" in entry.key else entry.key] = ours
        elif ours not in registry:
            registry.append(ours)
