"""Damage the files of each reader at random and read them: ``python tests/fuzz_readers.py --cases 2000``.

Bytes of each sample file are changed, cut out, repeated or cut off. Reading must give a recording or a ValueError or
OSError in one line. Each case has a process of its own with a limit of time and of memory (the file's size and some to
spare), so a hang, a crash and a greedy reader are seen, too. Exit code 1 if there were any; what was read is kept in
the folder that is printed. Runs where there is fork, that is, not on Windows.
"""

import argparse
import collections
import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "io"))

SPARE_BYTES = 2**30
LIMIT_S = 30
MAX_BYTES = 8_000_000  # of a sample that is damaged; a recording's samples are all alike


def samples(folder):
    """Make or copy the undamaged samples: a folder for each, and what to read of it."""
    import test_rigs
    from test_sources import LINE, write_nwb

    for write in test_rigs.WRITERS:
        at = folder / write.__name__.removeprefix("write_")
        at.mkdir()
        source, *_ = write(at)
        yield at.name, at, source.relative_to(at)
    (folder / "electrical_series").mkdir()
    write_nwb(folder / "electrical_series" / "a.nwb", LINE)
    yield "electrical_series", folder / "electrical_series", Path("a.nwb")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    shared = Path(os.environ.get("DLVOLT_SHARED_DATA", beside))
    for name in ("nwb/ophys_roi_response_series.nwb", "open_ephys/binary_16ch_40khz", "open_ephys/legacy_2ch_40khz"):
        if (shared / name).exists():
            at = folder / Path(name).stem
            at.mkdir()
            copy = shutil.copytree if (shared / name).is_dir() else shutil.copy2
            copy(shared / name, at / Path(name).name)
            yield at.name, at, Path(name).name


def damage(path, rng):
    """Change a file in one of several ways."""
    data = np.fromfile(path, np.uint8)
    if not len(data):
        return
    # Headers are what readers trust; so half of the damage is there.
    end = len(data) if rng.random() < 0.5 else min(len(data), 4096)
    kind = rng.choice(["bytes", "bits", "zeros", "cut off", "cut out", "repeat"])
    if kind == "bytes":
        where = rng.integers(0, end, rng.integers(1, 20))
        data[where] = rng.integers(0, 256, len(where))
    elif kind == "bits":
        where = rng.integers(0, end, rng.integers(1, 4))
        data[where] ^= np.uint8(1) << rng.integers(0, 8, len(where)).astype(np.uint8)
    else:
        first, last = np.sort(rng.integers(0, end + 1, 2))
        if kind == "zeros":
            data[first:last] = 0
        elif kind == "cut off":
            data = data[:first]
        elif kind == "cut out":
            data = np.delete(data, slice(first, last))
        else:
            data = np.insert(data, first, data[first : min(last, first + 10_000)])
    data.tofile(path)


def read(source):
    """Read as the command line does; return what kind of answer there was."""
    from dlvolt.io import read_recording, read_traces

    answers = []
    for reading in (read_recording, read_traces):
        try:
            for stream in (None, "RoiResponseSeries", "File_Reader-106.0"):
                with contextlib.suppress(ValueError):
                    recording = reading(source, stream_name=stream)
                    break
            else:
                recording = reading(source)
            answers.append("read")
        except (ValueError, OSError) as error:
            if "\n" in str(error):
                raise RuntimeError(f"an error of several lines: {error}") from error
            answers.append("refused")
            continue
        with contextlib.suppress(ValueError, OSError):  # damage in the samples themselves shows only here
            recording.get_traces(segment_index=0, start_frame=0, end_frame=min(1000, recording.get_num_samples(0)))
    return "read" if "read" in answers else "refused"


def in_a_process(source, num_bytes):
    """Read in a child with limits; return the answer, or what went wrong."""
    receiving, sending = os.pipe()
    if (child := os.fork()) == 0:
        os.close(receiving)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        size = (
            int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            if sys.platform == "linux"
            else 0
        )
        if size:
            resource.setrlimit(resource.RLIMIT_AS, (size + num_bytes + SPARE_BYTES,) * 2)
        signal.alarm(LIMIT_S)
        try:
            warnings.simplefilter("ignore")
            answer = read(source)
        except BaseException:
            answer = f"wrong: {traceback.format_exc()}"
        os.write(sending, answer.encode()[:60_000])
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        answer = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"wrong: {'it hung' if name == 'SIGALRM' else 'it crashed'} ({name})"
    return answer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="in all; default: 2000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="the sample of this name only")
    args = parser.parse_args()
    import dlvolt.io.sources  # noqa: F401 (so that no child has to)

    rng = np.random.default_rng(args.seed)
    folder = Path(tempfile.mkdtemp(prefix="dlvolt-fuzz-"))
    (folder / "whole").mkdir()
    known = [each for each in samples(folder / "whole") if args.only in (None, each[0])]
    answers, wrong = collections.Counter(), []
    for case in range(args.cases):
        name, at, source = known[case % len(known)]
        shutil.rmtree(folder / "damaged", ignore_errors=True)
        shutil.copytree(at, folder / "damaged")
        files = sorted(path for path in (folder / "damaged").rglob("*") if path.is_file())
        files = [path for path in files if path.stat().st_size <= MAX_BYTES] or files
        for _ in range(rng.integers(1, 3)):
            damage(files[rng.integers(len(files))], rng)
        num_bytes = sum(path.stat().st_size for path in files)
        answer = in_a_process(folder / "damaged" / source, num_bytes)
        answers[name, answer.partition(":")[0]] += 1
        if answer.startswith("wrong") or not answer:
            kept = folder / f"case_{case}"
            shutil.copytree(folder / "damaged", kept)
            wrong.append(kept)
            print(f"{name}, case {case}, kept in {kept}: {answer}", flush=True)
    for (name, answer), count in sorted(answers.items()):
        print(f"{name:<32} {answer:<8} {count}")
    print(f"{args.cases} cases, {len(wrong)} wrong")
    if not wrong:
        shutil.rmtree(folder)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
