"""Training of networks on labelled traces.

Its modules are not imported lazily, because functions have the names of their files.
"""

from .fit import fit
from .labels import targets
from .learning_curve import learning_curve
from .windows import split_in_time, windows

__all__ = ["fit", "learning_curve", "split_in_time", "targets", "windows"]
