"""What the sorter does with recordings of ROIs: `recipe` is how, for voltage, and `calcium`, for calcium."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "crosstalk": ["Crosstalk", "flag_crosstalk", "neighbouring_pairs"],
        "event_labels": ["label_events"],
        "rate_spikes": ["rate_spikes"],
        "recipe": ["roi_traces", "sort_rois"],
        "refinement": ["Models", "TraceModel", "find_spikes", "learn"],
        "waveforms": ["expected_waveforms"],
    },
)
