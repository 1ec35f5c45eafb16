"""Kill runs at random moments and see that nothing is lost: ``python tests/kill_runs.py --kills 40``.

``dlvolt sort``, ``detect`` and ``train`` with ``--overwrite``, and ``write_nwb_units(overwrite=True)``, are started
that often each and killed (SIGKILL) at a random moment of their run. After each kill, the file that was there before
must be as it was, or be the whole new one, and the command must run again. Hidden ``.dlvolt-…`` folders beside the file
may be left; they are counted, do not matter to later runs and may be removed at any time. Then each command is stopped
by Ctrl-C (SIGINT) as often as ``--interrupts`` says: it must end within two seconds, say so in one line, and leave
nothing. Exit code 1 if anything was lost.
"""

import argparse
import hashlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import spikeinterface as si

SECONDS_TO_STOP = 2.0
START = ["--session-start-time", "2024-05-31T14:30:00+00:00"]
WRITE = """
import spikeinterface as si
from dlvolt import write_nwb_units
recording, sorting = si.load("recording"), si.load("truth")
sorting.register_recording(recording)
metadata = {"NWBFile": {"session_start_time": "2024-05-31T14:30:00+00:00"}}
print("ready", flush=True)
for _ in range(20):
    write_nwb_units(sorting, "units.nwb", metadata=metadata, overwrite=True)
"""


def prepare(folder):
    """Write what the commands read."""
    recording, truth = si.generate_ground_truth_recording(durations=[4.0], num_channels=4, num_units=3, seed=3)
    recording.save(folder=folder / "recording", verbose=False, progress_bar=False)
    truth.save(folder=folder / "truth")
    rng = np.random.default_rng(0)
    traces = rng.normal(size=(5000, 2))
    traces[20:4980:97] += 12
    np.save(folder / "traces.npy", traces)
    rows = [(n, frame / 500) for n in range(2) for frame in range(20, 4980, 97)]
    np.savetxt(folder / "spikes.csv", rows, delimiter=",", header="channel,time_s", comments="")


def commands():
    """List what is run, and what it writes."""
    dlvolt, traces = (
        [sys.executable, "-c", "from dlvolt.cli import main; main()"],
        ["traces.npy", "--sampling-frequency", "500"],
    )
    small = ["--labels", "spikes.csv", "--model", "fcn", "--epochs", "3", "--set", "channels=[4,4]"]
    common = ["--overwrite", "--quiet"]
    return {
        "sort": ([*dlvolt, "sort", "recording", "--out", "sorted.nwb", "--n-jobs", "1", *START, *common], "sorted.nwb"),
        "detect": ([*dlvolt, "detect", *traces, "--out", "found.nwb", "--n-jobs", "1", *START, *common], "found.nwb"),
        "train": ([*dlvolt, "train", *traces, *small, "--out", "model", *common], "model"),
        "write": ([sys.executable, "-c", WRITE], "units.nwb"),
    }


def digest(path):
    """Tell a file or folder from any other; None if there is none."""
    if not path.exists():
        return None
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(each.name.encode() + each.read_bytes() for each in files)).hexdigest()


def is_whole(path):
    """Whether what is written can be read."""
    if path.is_dir():
        from dlvolt.networks import load

        load(path)
        return True
    from pynwb import NWBHDF5IO

    with NWBHDF5IO(str(path), "r") as io:
        return len(io.read().units) > 0


def leftovers(folder):
    return sorted(path for path in folder.iterdir() if path.name.startswith(".dlvolt-"))


def start(command, folder):
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="of each command; default: 40")
    parser.add_argument("--interrupts", type=int, default=5, help="of each command; default: 5")
    parser.add_argument("--only", help="one of sort, detect, train, write")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    failures = 0
    with tempfile.TemporaryDirectory(prefix="dlvolt-kill-") as name:
        folder = Path(name)
        prepare(folder)
        for kind, (command, target) in commands().items():
            if args.only not in (None, kind):
                continue
            for _ in range(2):  # the first may compile, and says nothing of how long the others take
                began = time.monotonic()
                first = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
                if first.returncode:
                    sys.exit(f"{kind} does not run: {first.stderr}")
                lasts = time.monotonic() - began
            replaced = 0
            for _ in range(args.kills):
                before = digest(folder / target)
                running = start(command, folder)
                time.sleep(lasts * rng.uniform(0.02, 1.0))
                running.kill()
                running.communicate()
                after = digest(folder / target)
                replaced += after != before
                if after is None or (after != before and not is_whole(folder / target)):
                    failures += 1
                    print(f"{kind}: {target} was lost")
            left = leftovers(folder)
            again = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if again.returncode or not is_whole(folder / target):
                failures += 1
                print(f"{kind} does not run after kills: {again.stderr}")
            slowest = 0.0
            for _ in range(args.interrupts if kind != "write" else 0):  # Python's own traceback there
                known = set(leftovers(folder))
                running = start(command, folder)
                time.sleep(lasts * rng.uniform(0.3, 0.9))
                running.send_signal(signal.SIGINT)
                began = time.monotonic()
                _, said = running.communicate()
                took = time.monotonic() - began
                slowest = max(slowest, took)
                finished = running.returncode == 0 or (running.returncode == -signal.SIGINT and not said)  # at its end
                lines = [line for line in said.splitlines() if line.strip()]
                new = set(leftovers(folder)) - known
                if not finished and (took > SECONDS_TO_STOP or len(lines) != 1 or running.returncode != 130 or new):
                    failures += 1
                    print(f"{kind}: Ctrl-C took {took:.1f} s, code {running.returncode}, left {new}, said: {said}")
            print(
                f"{kind}: {args.kills} kills within {lasts:.1f} s, {replaced} after the new file was in place, "
                f"{len(left)} hidden folders left; Ctrl-C at most {slowest:.1f} s",
                flush=True,
            )
    print(f"{failures} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
