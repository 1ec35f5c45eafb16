"""From peaks to clusters: snippet features, local ISO-SPLIT, and merging by unimodality; embeddings and DBSCAN."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
