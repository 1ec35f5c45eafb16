"""Lazy preprocessors: each takes a recording and returns a recording, computed chunk by chunk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "fill_nan": ["FillNanRecording", "fill_nan"],
        "whiten_noise": ["WhitenNoiseRecording", "whiten_noise"],
    },
)
