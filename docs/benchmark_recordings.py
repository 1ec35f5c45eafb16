"""Make a recording of the benchmark page: ``python docs/benchmark_recordings.py NAME FOLDER``.

FOLDER gets ``recording`` and ``truth``, both saved by SpikeInterface, for ``dlvolt evaluate``. Those of MEArec (``pip
install MEArec``) need its templates, which ``mearec gen-templates`` simulates from the cell models that come with it.
``--duration``, ``--seed`` and ``--set n_exc=5 noise_uv=12`` make another recording of the same kind.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import spikeinterface.full as si
from probeinterface import generate_linear_probe, generate_multi_columns_probe, generate_tetrode
from spikeinterface.generation import generate_drifting_recording

FS = 30_000.0  # Hz
NEUROPIXELS = dict(  # the 128 contacts of a short Neuropixels 1.0
    num_columns=4,
    num_contact_per_column=[32] * 4,
    xpitch=16,
    ypitch=40,
    y_shift_per_column=[20, 0, 20, 0],
    contact_shapes="square",
    contact_shape_params={"width": 12},
)


def si_tetrode(duration_s, seed):
    """Return six units near a tetrode."""
    probe = generate_tetrode()
    probe.set_device_channel_indices(np.arange(4))
    return si.generate_ground_truth_recording(
        durations=[duration_s],
        sampling_frequency=FS,
        num_channels=4,
        num_units=6,
        probe=probe,
        generate_sorting_kwargs=dict(firing_rates=(2.0, 15.0), refractory_period_ms=4.0),
        generate_unit_locations_kwargs=dict(margin_um=10.0, minimum_z=5.0, maximum_z=30.0, minimum_distance=5.0),
        noise_kwargs=dict(noise_levels=6.0, strategy="on_the_fly"),
        seed=seed,
    )


def si_probe(duration_s, seed, num_channels=32, num_units=24):
    """Return units along a probe with two columns of contacts, 20 µm apart."""
    return si.generate_ground_truth_recording(
        durations=[duration_s],
        sampling_frequency=FS,
        num_channels=num_channels,
        num_units=num_units,
        generate_sorting_kwargs=dict(firing_rates=(1.0, 10.0), refractory_period_ms=4.0),
        generate_unit_locations_kwargs=dict(margin_um=10.0, minimum_z=5.0, maximum_z=40.0, minimum_distance=15.0),
        noise_kwargs=dict(noise_levels=8.0, strategy="on_the_fly"),
        seed=seed,
    )


MOTIONS = {  # how far units move along the probe to either side, in µm, and SpikeInterface's settings of the motion
    "zigzag": (20, dict(drift_mode="zigzag", t_start_drift=60.0, period_s=200)),
    "nonrigid": (20, dict(drift_mode="zigzag", t_start_drift=60.0, period_s=200, non_rigid_gradient=0.1)),
    "sudden": (20, dict(drift_mode="bump", bump_interval_s=(20.0, 60.0))),
    "slow": (60, dict(drift_mode="zigzag", period_s=2400)),  # to one side in ten minutes
}


def si_neuropixels(duration_s, seed, motion):
    """Return 60 units on 128 channels. `motion` is one of `MOTIONS`, or None: then they do not move."""
    reach_um, how = MOTIONS[motion or "zigzag"]
    static, drifting, truth = generate_drifting_recording(
        num_units=60,
        duration=duration_s,
        sampling_frequency=FS,
        generate_probe_kwargs=NEUROPIXELS,
        generate_displacement_vector_kwargs=dict(
            displacement_sampling_frequency=5.0,
            drift_start_um=[0, reach_um],
            drift_stop_um=[0, -reach_um],
            drift_step_um=1,
            motion_list=[how],
        ),
        seed=seed,
    )
    return (drifting if motion else static), truth


def si_weak(duration_s, seed, num_channels, num_units, noise_uv):
    """Return units along a tetrode or a row of contacts in noise that hides some of them."""
    probe = generate_tetrode() if num_channels == 4 else generate_linear_probe(num_channels, ypitch=20.0)
    probe.set_device_channel_indices(np.arange(num_channels))
    return si.generate_ground_truth_recording(
        durations=[duration_s],
        sampling_frequency=FS,
        num_channels=num_channels,
        num_units=num_units,
        probe=probe,
        generate_sorting_kwargs=dict(firing_rates=(2.0, 12.0), refractory_period_ms=4.0),
        noise_kwargs=dict(noise_levels=noise_uv, strategy="on_the_fly"),
        seed=seed,
    )


def si_hash(duration_s, seed):
    """Return 8 units on 32 channels over the hash of 150 others, most of which hardly exceed the noise."""
    probe = generate_multi_columns_probe(num_columns=2, num_contact_per_column=16, xpitch=20.0, ypitch=20.0)
    probe.set_device_channel_indices(np.arange(32))
    settings = dict(durations=[duration_s], sampling_frequency=FS, probe=probe)
    near, truth = si.generate_ground_truth_recording(num_units=8, seed=seed, **settings)
    silent = dict(noise_levels=0.001, strategy="on_the_fly")
    far, others = si.generate_ground_truth_recording(num_units=150, seed=seed + 1, noise_kwargs=silent, **settings)
    recording = si.NumpyRecording([(near.get_traces() + 0.12 * far.get_traces()).astype("float32")], FS)
    recording.set_probe(probe)
    others = others.rename_units([f"far{unit}" for unit in others.unit_ids])
    return recording, si.aggregate_units([truth.rename_units([f"near{unit}" for unit in truth.unit_ids]), others])


def mearec(duration_s, seed, templates, min_dist_um, noise_uv=10.0, bursting=0, **num_cells):
    """Return simulated cells, some of which may burst, in noise that is coloured and correlated over distance."""
    import MEArec

    params = MEArec.get_default_recordings_params()
    params["spiketrains"].update(duration=duration_s, f_exc=4, f_inh=10, ref_per=2.5, **num_cells)
    params["templates"].update(min_amp=40, max_amp=300, min_dist=min_dist_um)
    params["recordings"].update(
        noise_mode="distance-correlated",
        noise_level=noise_uv,
        noise_color=True,
        filter=False,
        modulation="electrode",
        chunk_duration=20,
        bursting=bursting > 0,
        shape_mod=bursting > 0,  # spikes change shape in a burst
        n_bursting=bursting or None,
    )
    params["seeds"].update(spiketrains=seed, templates=seed + 1, convolution=seed + 2, noise=seed + 3)
    made = MEArec.gen_recordings(templates=templates, params=params, n_jobs=1, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mearec.h5"
        MEArec.save_recording_generator(made, str(path))
        return [read.save(format="memory", n_jobs=1, progress_bar=False) for read in si.read_mearec(path)]


RECORDINGS = {  # name: function, duration in s, seed, and further arguments of the function
    "mea_tetrode": (mearec, 240.0, 21, dict(n_exc=4, n_inh=2, min_dist_um=15)),
    "si_tetrode": (si_tetrode, 300.0, 11, {}),
    "si_probe32": (si_probe, 300.0, 11, {}),
    "mea_nn32": (mearec, 240.0, 31, dict(n_exc=16, n_inh=4, min_dist_um=20)),
    "mea_nn32_weak": (mearec, 90.0, 77, dict(n_exc=10, n_inh=3, min_dist_um=20, noise_uv=20.0)),
    "si_weak4": (si_weak, 120.0, 3, dict(num_channels=4, num_units=6, noise_uv=14.0)),
    "si_weak16": (si_weak, 120.0, 5, dict(num_channels=16, num_units=14, noise_uv=16.0)),
    "si_hash32": (si_hash, 60.0, 5, {}),
    "si_np_static": (si_neuropixels, 240.0, 11, dict(motion=None)),
    "si_np_drift": (si_neuropixels, 240.0, 11, dict(motion="zigzag")),
    "si_np_nonrigid": (si_neuropixels, 240.0, 11, dict(motion="nonrigid")),
    "si_np_sudden": (si_neuropixels, 240.0, 11, dict(motion="sudden")),
    "si_np_slow": (si_neuropixels, 600.0, 11, dict(motion="slow")),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECORDINGS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--templates", help="file of MEArec templates, for mea_…")
    parser.add_argument("--duration", type=float, help="s; default: that of the page")
    parser.add_argument("--seed", type=int, help="default: that of the page")
    parser.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="of the function, see RECORDINGS")
    args = parser.parse_args()
    make, duration_s, seed, settings = RECORDINGS[args.name]
    settings = settings | {setting: json.loads(value) for setting, value in (one.split("=") for one in args.set)}
    if make is mearec:
        settings = settings | dict(templates=args.templates)
    recording, truth = make(args.duration or duration_s, seed if args.seed is None else args.seed, **settings)
    recording.astype("float32").save(
        folder=args.folder / "recording", n_jobs=2, chunk_duration="1s", progress_bar=False
    )
    truth.save(folder=args.folder / "truth")
