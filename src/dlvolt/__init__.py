"""dlvolt: spike sorting and spike detection for SpikeInterface and NWB."""

import lazy_loader

import _dlvolt_autoload
from dlvolt import moved

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "deconvolution",
        "detection",
        "electrodes",
        "evaluation",
        "io",
        "networks",
        "plotting",
        "preprocessing",
        "reporting",
        "rois",
        "simulation",
        "training",
        *(name.split(".")[1] for name in moved.MOVED if name.count(".") == 1),
    ],
    submod_attrs={
        "io.image_sequence": ["read_image_sequence"],
        "io.line_scan": ["read_line_scan"],
        "io.nwb_units": ["write_nwb_units"],
        "io.open_ephys": ["read_open_ephys"],
        "io.trace_files": ["traces_to_recording"],
        "io.voltage_imaging": ["read_voltage_imaging"],
        "reporting.page": ["report"],
        "rois.recipe": ["roi_traces"],
    },
)

_dlvolt_autoload.install()
moved.install()
