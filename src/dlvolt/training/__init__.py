"""From labelled traces to trained networks.

Imported at once and not lazily, because functions here are called like their files.
"""

from .fit import fit
from .labels import targets
from .learning_curve import learning_curve
from .windows import split_in_time, windows

__all__ = ["fit", "learning_curve", "split_in_time", "targets", "windows"]
