"""From traces to peaks, in SpikeInterface's peak dtype; and, beside it, what networks are compared with."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adaptive": ["AdaptivePeakDetector"],
        "baselines": ["adaptive_matched_filter", "adaptive_threshold", "gaussian_threshold"],
        "classify": ["SpikeProbabilityOfPeaks", "check_peak_model", "classify_peaks"],
        "crosstalk": ["Crosstalk", "flag_crosstalk", "neighbouring_pairs"],
        "event_labels": ["label_events"],
        "expected_f1": ["best_expected_f1", "expected_f1_thresholds"],
        "matched_filter": ["MatchedFilterPeakDetector", "find_prototype", "find_snippets"],
        "network": ["NetworkPeakDetector"],
        "rate_spikes": ["rate_spikes"],
        "shadowing": ["shadow"],
    },
)
