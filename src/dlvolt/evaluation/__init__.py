"""How right detected spikes are: scores of events and of samples, and the threshold that serves best."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "events": ["EventScores", "event_scores", "match_events"],
        "samples": ["SampleScores", "confusion_table", "sample_scores"],
        "sweep": ["best_threshold", "threshold_sweep"],
    },
)
