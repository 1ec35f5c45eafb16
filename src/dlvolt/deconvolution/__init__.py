"""The convolutional generative model of a recording and its MAP estimation, in PyTorch.

A recording X of `N` channels and `T` samples is the sum of `K` units, each an amplitude train convolved with a
template of `D` samples, plus white noise::

    x[n, t] = Σ_k Σ_d a[k, t - d] w[k, n, d] + ε,    ε ~ N(0, σ²),    a[k, t] ~ Exp(λ)

Templates have unit Frobenius norm and rank `R`. One function here per equation; none knows SpikeInterface, each
takes its device and dtype from its inputs. Torch's ``conv1d`` correlates, so functions are named after what they
compute.

References
----------
S. Linderman, "Spike Sorting by Deconvolution", Machine Learning Methods for Neural Data Analysis, Stanford, 2023.
M. Pachitariu, S. Sridhar, C. Stringer, "Solving the spike sorting problem with Kilosort", bioRxiv, 2023.
"""

from .amplitudes import AmplitudePrior, least_scores, map_amplitudes, map_gain, separated_maxima
from .coordinate_ascent import sweep
from .events import Events
from .locality import local_columns, neighbours
from .model import event_waveforms, log_joint, residual, subtract, synthesize
from .pursuit import PreparedTemplates, cross_correlations, pursue
from .scores import dense_scores, scores
from .shifts import NUM_SHIFTS, fractions, shift_bank
from .templates import LowRankTemplates, compose, event_slices, low_rank, update_templates

__all__ = [
    "NUM_SHIFTS",
    "AmplitudePrior",
    "Events",
    "LowRankTemplates",
    "PreparedTemplates",
    "compose",
    "cross_correlations",
    "dense_scores",
    "event_slices",
    "event_waveforms",
    "fractions",
    "least_scores",
    "local_columns",
    "log_joint",
    "low_rank",
    "map_amplitudes",
    "map_gain",
    "neighbours",
    "pursue",
    "residual",
    "scores",
    "separated_maxima",
    "shift_bank",
    "subtract",
    "sweep",
    "synthesize",
    "update_templates",
]
