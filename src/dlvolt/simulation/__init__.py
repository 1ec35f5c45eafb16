"""Traces with known spikes: phenomenological ones for training, biophysical ones for evaluation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "biophysical": ["simulate_biophysical"],
        "calcium_traces": ["CalciumSettings", "simulate_calcium"],
        "extracellular": [
            "ExtracellularSettings",
            "extracellular_scores",
            "extracellular_windows",
            "simulate_extracellular",
        ],
        "imaging_file": ["ImagingTruth", "write_simulated_imaging"],
        "voltage_traces": ["VoltageSettings", "simulate_voltage"],
    },
)
