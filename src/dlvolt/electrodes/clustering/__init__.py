"""From peaks to clusters: snippet features, local ISO-SPLIT, and merging by unimodality; embeddings and DBSCAN."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "dbscan": ["DbscanClustering", "density_clusters"],
        "embedding": ["embed"],
        "isosplit": ["isosplit_recursive", "split_locally", "is_unimodal"],
        "snippets": ["detect_and_project", "fit_temporal_basis"],
    },
)
