"""From peaks to clusters: snippet features, local ISO-SPLIT, and merging by unimodality."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "isosplit": ["isosplit_recursive", "split_locally", "is_unimodal"],
        "snippets": ["detect_and_project", "fit_temporal_basis"],
    },
)
