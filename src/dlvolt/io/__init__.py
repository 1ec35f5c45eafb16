"""Recordings and traces in, units out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "frames",
        "image_sequence",
        "line_scan",
        "nwb_session",
        "nwb_units",
        "open_ephys",
        "probes",
        "roi_masks",
        "rois",
        "sources",
        "trace_files",
        "voltage_imaging",
    ],
    submod_attrs={
        "image_sequence": ["read_image_sequence"],
        "line_scan": ["read_line_scan"],
        "nwb_units": ["write_nwb_units"],
        "open_ephys": ["read_open_ephys"],
        "probes": ["attach_probe"],
        "sources": ["read_recording", "read_traces"],
        "trace_files": ["read_label_file", "read_trace_file", "traces_to_recording"],
        "voltage_imaging": ["read_voltage_imaging"],
    },
)
