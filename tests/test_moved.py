"""Import paths of before lead to where things are now."""

import importlib
import subprocess
import sys

import pytest

from dlvolt.moved import MOVED, NAMES

DOCUMENTED = [
    "dlvolt.detection.MatchedFilterPeakDetector",
    "dlvolt.detection.classify_peaks",
    "dlvolt.detection.SpikeProbabilityOfPeaks",
    "dlvolt.detection.find_snippets",
    "dlvolt.detection.find_prototype",
    "dlvolt.detection.label_events",
    "dlvolt.detection.flag_crosstalk",
    "dlvolt.detection.neighbouring_pairs",
    "dlvolt.detection.Crosstalk",
    "dlvolt.detection.rate_spikes",
    "dlvolt.clustering.embed",
    "dlvolt.clustering.DbscanClustering",
    "dlvolt.clustering.isosplit_recursive",
    "dlvolt.learning.learn_units",
    "dlvolt.learning.Units",
    "dlvolt.matching.DlvoltMatching",
    "dlvolt.motion.estimate_drift",
    "dlvolt.optical.sort_rois",
    "dlvolt.optical.roi_traces",
    "dlvolt.preprocessing.survey.Survey",
    "dlvolt.sorter.sort",
    "dlvolt.clustering.dbscan.density_clusters",
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_moved_modules_are_the_ones_at_their_new_places():
    for old, new in MOVED.items():
        assert importlib.import_module(old) is importlib.import_module(new)


@pytest.mark.parametrize("old", NAMES)
def test_moved_names_are_what_they_were(old, monkeypatch):
    (was, _, name), (where, _, new) = old.rpartition("."), NAMES[old].rpartition(".")
    monkeypatch.delitem(vars(importlib.import_module(was)), name, raising=False)  # a module imported by that name
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {NAMES[old]}"):
        found = getattr(importlib.import_module(was), name)
    assert found is getattr(importlib.import_module(where), new)


def test_names_that_were_documented_are_found_with_a_warning():
    lines = ["from {} import {}".format(*name.rsplit(".", 1)) for name in DOCUMENTED]
    command = [sys.executable, "-W", "always::DeprecationWarning", "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "dlvolt.clustering has moved to dlvolt.electrodes.clustering" in done.stderr


def test_what_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("dlvolt.learnings")
    with pytest.raises(AttributeError, match="no_such_name"):
        importlib.import_module("dlvolt.detection").no_such_name  # noqa: B018
