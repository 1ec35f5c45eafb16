"""What the sorter does with recordings of electrodes: `stages` are its verbs, in order."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "artefacts": ["Artefacts", "bridge_periods", "find_artefacts"],
        "classify": ["SpikeProbabilityOfPeaks", "check_peak_model", "classify_peaks"],
        "hum": ["find_hum"],
        "matched_filter": ["MatchedFilterPeakDetector", "find_prototype", "find_snippets"],
        "recipe": ["sort_electrodes"],
    },
)
