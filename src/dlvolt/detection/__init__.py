"""Detectors of the spikes of single traces, in SpikeInterface's peak dtype; and what networks are compared with."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adaptive": ["AdaptivePeakDetector"],
        "baselines": ["adaptive_matched_filter", "adaptive_threshold", "gaussian_threshold"],
        "expected_f1": ["best_expected_f1", "expected_f1_thresholds"],
        "network": ["NetworkPeakDetector"],
        "shadowing": ["shadow"],
        # what is elsewhere now, see `dlvolt.moved`
        "classify": ["SpikeProbabilityOfPeaks", "check_peak_model", "classify_peaks"],
        "crosstalk": ["Crosstalk", "flag_crosstalk", "neighbouring_pairs"],
        "event_labels": ["label_events"],
        "matched_filter": ["MatchedFilterPeakDetector", "find_prototype", "find_snippets"],
        "rate_spikes": ["rate_spikes"],
    },
)
