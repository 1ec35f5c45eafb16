"""Networks that read spikes from traces, one architecture per file; no SpikeInterface here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "autoencoder": ["Autoencoder"],
        "bilstm": ["BiLSTM"],
        "estimator": ["TraceNetwork"],
        "fcn": ["FCN"],
        "features": ["FEATURES", "feature_channels", "feature_margin", "normalise"],
        "inference": ["trace_probability"],
        "mel": ["mel_spectrogram"],
        "mel_svm": ["MelSVM"],
        "snippets": ["SnippetNetwork"],
        "store": ["available", "create", "load", "save"],
        "tcn": ["TCN"],
        "transformer": ["Transformer"],
        "unet": ["UNet"],
        "waveform_cnn": ["WaveformCNN"],
        "waveform_gru": ["WaveformGRU"],
    },
)
