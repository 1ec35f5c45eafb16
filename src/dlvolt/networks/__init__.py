"""Networks that read spikes from traces, one architecture per file; no SpikeInterface here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "autoencoder": ["Autoencoder"],
        "bilstm": ["BiLSTM"],
        "calcium": ["Calcium"],
        "estimator": ["TraceNetwork"],
        "fcn": ["FCN"],
        "features": ["FEATURES", "feature_channels", "feature_margin", "normalise", "standardise"],
        "inference": ["trace_probability", "trace_rate"],
        "mel": ["mel_spectrogram"],
        "mel_svm": ["MelSVM"],
        "snippets": ["SnippetNetwork"],
        "oasis": ["Oasis"],
        "rate": ["RateNetwork"],
        "s2s": ["S2S"],
        "store": ["available", "create", "load", "save"],
        "tcn": ["TCN"],
        "transformer": ["Transformer"],
        "unet": ["UNet"],
        "waveform_cnn": ["WaveformCNN"],
        "waveform_gru": ["WaveformGRU"],
    },
)
