import numpy as np
import pytest
import spikeinterface as si

from dlvolt.io.rois import describe_rois, set_roi_probe

PLACES = np.array([[0.0, 1.0], [2.0, 3.0], [2.0, 1.0]])


def recording_of_rois():
    return si.NumpyRecording([np.zeros((10, 3))], 400.0, channel_ids=["a", "b", "c"])


@pytest.mark.parametrize("make", [set_roi_probe, lambda recording, um: describe_rois(recording, centroid=um)])
def test_centroids_become_the_probe(make):
    recording = recording_of_rois()
    make(recording, PLACES)
    np.testing.assert_array_equal(recording.get_channel_locations(), PLACES)
    assert recording.get_probe().contact_shape_params.tolist() == [{"radius": 5.0}] * 3


@pytest.mark.parametrize("odd", [[np.nan, np.nan], [np.inf, 0.0], [0.0, 1.0]], ids=["nowhere", "infinite", "shared"])
def test_no_probe_of_centroids_that_it_cannot_hold(odd):
    recording = recording_of_rois()
    describe_rois(recording, centroid=np.array([*PLACES[:2], odd]))
    assert not recording.has_probe()
    np.testing.assert_array_equal(recording.get_property("centroid")[2], odd)


def test_centroids_in_pixels_are_no_probe():
    recording = recording_of_rois()
    describe_rois(recording, centroid=PLACES, centroid_unit="pixels", indicator=None, value="fluorescence")
    assert not recording.has_probe()
    assert recording.get_annotation("value") == "fluorescence"
    assert "indicator" not in recording._annotations
