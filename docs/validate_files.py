"""Write a file of each kind that dlvolt writes, and have archives' validators judge them.

``python docs/validate_files.py FOLDER`` sorts and detects in short recordings, simulated and, with ``--open-ephys
SESSION SESSION``, from a rig: electrodes from Open Ephys, NWB and arrays, voltage and calcium imaging from NWB and
arrays, the demo's own file, and one after curation. It prints what ``nwbinspector`` finds in each, and what
``dandi validate`` finds, if that program is installed (``--dandi PATH`` takes that of another environment). The exit
code is 1 if there is anything critical, a best-practice violation, or an error of DANDI. ``--only-validate`` writes
nothing and judges the files that are in FOLDER.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np
import spikeinterface as si
from nwbinspector import Importance, inspect_nwbfile
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ecephys import ElectricalSeries
from pynwb.file import Subject
from spikeinterface.curation import apply_curation

from dlvolt import read_voltage_imaging, write_nwb_units
from dlvolt.cli import main as dlvolt
from dlvolt.io import read_recording
from dlvolt.io.streams import SeveralStreams
from dlvolt.simulation import CalciumSettings, simulate_calcium, write_simulated_imaging

METADATA = {
    "NWBFile": {
        "session_description": "A mouse on a wheel.",
        "session_start_time": "2024-05-31T14:30:00+02:00",
        "session_id": "wheel-1",
        "experimenter": ["Galvani, Luigi"],
        "experiment_description": "A mouse runs on a wheel in the dark.",
        "institution": "Bologna",
        "lab": "Galvani",
        "keywords": ["spike sorting"],
    },
    "Subject": {
        "subject_id": "m1",
        "species": "Mus musculus",
        "sex": "F",
        "age": "P90D",
        "description": "a mouse",
        "strain": "C57BL/6J",
    },
    "ElectrodeGroup": {"location": "CA1", "description": "left hemisphere"},
}
KNOWN = {"check_units_resolution_is_valid": "of a camera of less than 100 Hz, 1 / rate is more than it expects"}
SERIOUS = (Importance.CRITICAL, Importance.BEST_PRACTICE_VIOLATION, Importance.PYNWB_VALIDATION, Importance.ERROR)


def write_electrical_series(path: Path, recording: si.BaseRecording) -> None:
    """Write a recording as a lab would with pynwb, its session and subject with it."""
    start = datetime.fromisoformat(METADATA["NWBFile"]["session_start_time"])
    nwbfile = NWBFile(identifier="wheel-1", **METADATA["NWBFile"] | {"session_start_time": start})
    nwbfile.subject = Subject(**METADATA["Subject"])
    device = nwbfile.create_device(name="probe", description="a probe of four contacts")
    group = nwbfile.create_electrode_group("shank", description="the only shank", location="CA1", device=device)
    for x, y in recording.get_channel_locations():
        nwbfile.add_electrode(group=group, location="CA1", rel_x=float(x), rel_y=float(y))
    nwbfile.add_acquisition(
        ElectricalSeries(
            name="AP",
            description="action potentials",
            data=np.round(recording.get_traces() / 0.2).astype("int16"),
            electrodes=nwbfile.create_electrode_table_region(list(range(4)), "all electrodes"),
            rate=recording.sampling_frequency,
            conversion=0.2e-6,
        )
    )
    with NWBHDF5IO(str(path), "w") as io:
        io.write(nwbfile)


def first_stream(session: Path) -> list[str]:
    """Return the flags that choose the first stream of a session; no flags if it has only one."""
    try:
        read_recording(session)
    except SeveralStreams as error:
        return ["--stream", error.streams[0].split("'")[1]]
    return []


def write_all(folder: Path, open_ephys: list[Path]) -> list[Path]:
    """Write a file of each kind."""
    metadata = folder / "metadata.json"
    metadata.write_text(json.dumps(METADATA))
    given = ["--metadata", str(metadata), "--overwrite", "--quiet"]

    def write(command: str, source: Path, name: str, *options: str) -> Path:
        dlvolt([command, str(source), "--out", str(folder / f"{name}.nwb"), *given, *options])
        return folder / f"{name}.nwb"

    sources = folder / "sources"
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir()
    recording, _ = si.generate_ground_truth_recording(durations=[8.0, 4.0], num_channels=4, num_units=3, seed=3)
    recording.save(folder=sources / "segments", verbose=False, progress_bar=False)
    write_electrical_series(sources / "electrical_series.nwb", recording.select_segments([0]))
    voltage = write_simulated_imaging(sources / "voltage.nwb", 3, 10.0, 500.0, 8.0, seed=2).path
    np.save(sources / "voltage.npy", read_voltage_imaging(voltage).get_traces())
    settings = CalciumSettings(firing_rate_hz=(1, 3))
    np.save(sources / "calcium.npy", simulate_calcium(3, 60.0, 30.0, settings=settings, seed=4)[0])

    kept = sources / "run"
    files = [
        write("sort", sources / "segments", "electrodes_from_arrays", "--folder", str(kept)),
        write("sort", sources / "electrical_series.nwb", "electrodes_from_nwb"),
        write("detect", voltage, "voltage_from_nwb", "--traces", "delta_f_over_f", "subthreshold"),
        write("detect", sources / "voltage.npy", "voltage_from_arrays", "--sampling-frequency", "500"),
        write(
            "detect", sources / "calcium.npy", "calcium_from_arrays", "--sampling-frequency", "30", "--model", "calcium"
        ),
    ]
    for index, session in enumerate(open_ephys):
        options = ["--probe", "linear:25", *first_stream(session)]
        files.append(write("sort", session, f"electrodes_from_open_ephys_{index}", *options))
    analyzer = si.load(kept / "analyzer")
    unit_ids = list(analyzer.unit_ids)
    decided = {"format_version": "2", "unit_ids": unit_ids, "merges": [{"unit_ids": unit_ids[:2]}], "removed": []}
    curated = apply_curation(analyzer, decided, sparsity_overlap=0.0)
    files.append(write_nwb_units(curated, folder / "curated.nwb", metadata=METADATA, overwrite=True))
    dlvolt(["demo", "--out", str(folder), "--duration", "8", "--quiet"])
    return [*files, folder / "dlvolt_demo.nwb"]


def has_units(path: Path) -> bool:
    """Return whether a file has a unit: validators fail on empty tables, and archives do not want them."""
    with NWBHDF5IO(str(path), "r") as io:
        found = len(io.read().units) > 0
    if not found:
        print(f"{path.name}: no units, so there is nothing for an archive")
    return found


def inspect(path: Path) -> bool:
    """Print what nwbinspector finds in a file; return whether nothing of it is serious."""
    found = list(inspect_nwbfile(nwbfile_path=str(path)))
    print(f"{path.name}: nwbinspector: {dict(Counter(each.importance.name for each in found)) or 'nothing'}")
    for each in found:
        known = f" (known: {KNOWN[each.check_function_name]})" if each.check_function_name in KNOWN else ""
        print(f"    {each.importance.name}: {each.check_function_name}, {each.object_name}: {each.message}{known}")
    return not any(each.importance in SERIOUS and each.check_function_name not in KNOWN for each in found)


def ask_dandi(dandi: str, path: Path) -> bool:
    """Print what ``dandi validate`` says of a file; return whether it has no error."""
    # DANDI_NO_ET: it asks a server whether it is the newest version, and waits where there is none.
    done = subprocess.run(
        [dandi, "validate", "--ignore", "DANDI.NO_DANDISET_FOUND", str(path)],
        env=os.environ | {"DANDI_NO_ET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    print(
        f"{path.name}: dandi validate: code {done.returncode}\n    " + "\n    ".join(done.stdout.strip().splitlines())
    )
    return done.returncode == 0


def main() -> None:
    """Write the files, if asked for, and judge them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--open-ephys", type=Path, nargs="+", default=[], help="folders of Open Ephys sessions")
    parser.add_argument("--dandi", default=shutil.which("dandi"), help="the program")
    parser.add_argument("--only-validate", action="store_true")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    files = sorted(args.folder.glob("*.nwb")) if args.only_validate else write_all(args.folder, args.open_ephys)
    files = [path for path in files if has_units(path)]
    good = [inspect(path) for path in files]
    if args.dandi:
        good += [ask_dandi(args.dandi, path) for path in files]
    else:
        print("dandi is not installed: pip install dandi, in an environment of its own")
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
