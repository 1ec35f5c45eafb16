"""What belongs to recordings of ROIs: the model of one trace, which a network's proposals start."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "refinement": ["Models", "TraceModel", "find_spikes", "learn"],
        "waveforms": ["expected_waveforms"],
    },
)
