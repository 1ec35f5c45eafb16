"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import dlvolt


def documented():
    """Each function and class of the package whose docstring has an example, and where it is."""
    for found in pkgutil.walk_packages(dlvolt.__path__, "dlvolt."):
        if "__main__" in found.name:
            continue
        spec = importlib.util.find_spec(found.name)
        if ">>>" not in Path(spec.origin).read_text(encoding="utf-8"):
            continue
        module = importlib.import_module(found.name)
        for test in doctest.DocTestFinder(recurse=True, exclude_empty=True).find(module):
            if test.examples:
                yield pytest.param(test, id=test.name)


@pytest.mark.parametrize("example", list(documented()))
def test_example(example):
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(example)
    assert results.failed == 0
    assert results.attempted > 0
