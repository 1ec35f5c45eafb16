"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import dlvolt


def modules_with_examples():
    """Told by their text: importing them all is slow."""
    for found in pkgutil.walk_packages(dlvolt.__path__, "dlvolt."):
        if ">>>" in Path(importlib.util.find_spec(found.name).origin).read_text(encoding="utf-8"):
            yield found.name


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_examples(name):
    examples = [test for test in doctest.DocTestFinder().find(importlib.import_module(name)) if test.examples]
    assert examples
    for example in examples:
        assert doctest.DocTestRunner().run(example).failed == 0
