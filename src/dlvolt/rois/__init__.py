"""What the sorter does with recordings of ROIs: `recipe` is how, for voltage, and `calcium`, for calcium."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
