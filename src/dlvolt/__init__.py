"""dlvolt: spike sorting and spike detection for SpikeInterface and NWB."""

import lazy_loader

import _dlvolt_autoload

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "clustering",
        "deconvolution",
        "detection",
        "evaluation",
        "io",
        "networks",
        "plotting",
        "preprocessing",
        "simulation",
        "training",
    ],
    submod_attrs={
        "io.open_ephys": ["read_open_ephys"],
        "io.nwb_units": ["write_nwb_units"],
    },
)

_dlvolt_autoload.install()
