"""dlvolt: spike sorting and spike detection for SpikeInterface and NWB."""

import lazy_loader

import _dlvolt_autoload

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "calcium",
        "clustering",
        "deconvolution",
        "detection",
        "evaluation",
        "io",
        "motion",
        "networks",
        "optical",
        "plotting",
        "preprocessing",
        "reporting",
        "simulation",
        "training",
    ],
    submod_attrs={
        "io.image_sequence": ["read_image_sequence"],
        "io.line_scan": ["read_line_scan"],
        "io.nwb_units": ["write_nwb_units"],
        "io.open_ephys": ["read_open_ephys"],
        "io.trace_files": ["traces_to_recording"],
        "io.voltage_imaging": ["read_voltage_imaging"],
        "optical": ["roi_traces"],
        "reporting.page": ["report"],
    },
)

_dlvolt_autoload.install()
