"""Sphinx configuration."""

import dlvolt

project = "dlvolt"
author = "The dlvolt developers"
copyright = "2026, The dlvolt developers"
version = release = dlvolt.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
numpydoc_show_class_members = False
autodoc_typehints = "none"  # they stand in the docstrings
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "examples",
    "filename_pattern": r"/\d\d_",
    "within_subsection_order": "FileNameSortKey",
    "show_memory": False,
}
exclude_patterns = ["_build", "examples/*.ipynb", "examples/*.py", "examples/*.zip"]
html_theme = "pydata_sphinx_theme"
html_title = "dlvolt"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_theme_options = {"show_prev_next": False}


def write_parameters(app):
    """Write the table of the sorter's parameters from the dataclass that defines them."""
    from dlvolt.parameters import SorterParameters

    rows = [".. list-table::", "   :header-rows: 1", "", "   * - name", "     - default", "     - meaning"]
    for name, description in SorterParameters.descriptions().items():
        rows += [f"   * - ``{name}``", f"     - ``{SorterParameters.defaults()[name]!r}``", f"     - {description}"]
    (app.srcdir / "parameters.inc").write_text("\n".join(rows) + "\n")


def setup(app):
    """Hook into Sphinx."""
    app.connect("builder-inited", write_parameters)
