"""How right detected spikes are: scores of events, samples, rates, sortings and sorters; and the best threshold."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "comparison": ["compare_sortings", "compare_to_ground_truth", "comparison_tolerance_ms"],
        "events": ["EventScores", "event_scores", "match_events"],
        "rates": ["rate_scores"],
        "samples": ["SampleScores", "confusion_table", "sample_scores"],
        "sorters": ["compare_sorters", "score_sortings"],
        "sweep": ["best_threshold", "threshold_sweep"],
    },
)
