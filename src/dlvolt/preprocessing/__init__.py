"""Lazy preprocessors: each takes a recording and returns a recording, computed chunk by chunk."""

from importlib import import_module

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "delta_f_over_f": ["DeltaFOverFRecording", "delta_f_over_f"],
        "feature_channels": ["FeatureChannelsRecording", "feature_channels"],
        "fill_nan": ["FillNanRecording", "fill_nan"],
        "highpass_reference": ["HighpassReferenceRecording", "highpass_reference"],
        "mel_spectrogram": ["MelSpectrogramRecording", "mel_spectrogram"],
        "notch_comb": ["NotchCombRecording", "notch_comb"],
        "spike_probability": ["SpikeProbabilityRecording", "infer_polarity", "spike_probability"],
        "spike_rate": ["SpikeRateRecording", "spike_rate"],
        "steady_noise": ["SteadyNoiseRecording", "steady_noise"],
        "subthreshold": ["SubthresholdRecording", "subthreshold"],
        "whiten_noise": ["WhitenNoiseRecording", "whiten_noise"],
    },
)

# SpikeInterface's preprocessors first: importing them registers ours, and so imports what is here. Were one of our
# modules the first to import them, it would be met there half imported.
import_module("spikeinterface.preprocessing")
