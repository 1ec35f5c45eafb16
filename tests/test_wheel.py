"""The wheel, built and installed outside the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import dlvolt

CHECKOUT = Path(__file__).resolve().parents[1]
DIST_INFO = f"dlvolt-{dlvolt.__version__}.dist-info"
BIN = "Scripts" if os.name == "nt" else "bin"


def run(*command, cwd):
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=CHECKOUT)
    (path,) = folder.glob("dlvolt-*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new environment with the wheel, and behind it, for the dependencies, the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    (site_packages,) = folder.glob("[Ll]ib/**/site-packages")
    python = folder / BIN / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    # Only now, else pip would take the dlvolt there for installed here. None of the .pth files there is read.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def test_wheel_holds_the_package_and_the_hook(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(f"{DIST_INFO}/entry_points.txt").decode()
    source = CHECKOUT / "src"
    package = {path.relative_to(source).as_posix() for path in (source / "dlvolt").rglob("*.py")}
    assert package <= names
    assert "dlvolt/reporting/page.html" in names
    assert {"_dlvolt_autoload.py", "dlvolt_autoload.pth"} <= names
    assert "dlvolt = dlvolt.cli:main" in entry_points
    assert {name.split("/")[0] for name in names} == {"dlvolt", DIST_INFO, "_dlvolt_autoload.py", "dlvolt_autoload.pth"}


def test_spikeinterface_knows_dlvolt_outside_the_checkout(environment, tmp_path):
    code = (
        "import sys, spikeinterface.sorters as sorters; assert 'dlvolt' in sorters.installed_sorters(); "
        "print(sys.modules['dlvolt'].__file__)"
    )
    found = run(environment / BIN / "python", "-c", code, cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(environment)


def test_demo_outside_the_checkout(environment, tmp_path):
    run(environment / BIN / "dlvolt", "demo", "--quiet", "--duration", "2", "--n-jobs", "1", cwd=tmp_path)
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert written == ["dlvolt_demo/dlvolt_demo.nwb", "dlvolt_demo/dlvolt_demo.png"]


def test_uninstalling_leaves_nothing(environment, tmp_path):  # last, as it takes the environment apart
    python = environment / BIN / "python"
    run(sys.executable, "-m", "pip", "--python", python, "uninstall", "-q", "-y", "dlvolt", cwd=tmp_path)
    left = [
        path for path in environment.rglob("*") if "dlvolt" in str(path.relative_to(environment)) and path.is_file()
    ]
    assert not [path for path in left if "__pycache__" not in path.parts]  # but for what interpreters have compiled
    assert run(python, "-W", "error", "-c", "print('still starts')", cwd=tmp_path) == "still starts\n"
