"""What is public is in the reference."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference.rst"
NAMES = set(re.findall(r"^   ([a-z_]+(?:\.\w+)*\w*)$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE))
PACKAGES = [
    "deconvolution",
    "detection",
    "electrodes",
    "electrodes.clustering",
    "electrodes.learning",
    "evaluation",
    "io",
    "networks",
    "plotting",
    "preprocessing",
    "reporting",
    "rois",
    "simulation",
    "training",
]


@pytest.mark.parametrize("name", ["", *PACKAGES])
def test_every_public_name_is_in_the_reference(name):
    package = importlib.import_module(f"dlvolt.{name}".rstrip("."))
    modules = {each.name for each in pkgutil.iter_modules(package.__path__)}  # and functions of the same name, of these
    public = {each for each in set(package.__all__) - modules if callable(getattr(package, each))}
    assert public
    assert public - {each.rpartition(".")[2] for each in NAMES} == set()


def test_every_name_in_the_reference_is_there():
    for name in sorted(NAMES):
        module, _, attribute = f"dlvolt.{name}".rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
