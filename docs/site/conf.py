"""Settings of the documentation site; `build.py` beside it prepares the pages."""

from scidiff import __version__

project = "scidiff"
author = "scidiff contributors"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing", "ref.python", "myst.header", "docutils"]
html_theme = "furo"
html_title = f"scidiff {release}"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_custom_sections = [("Shapes", "params_style")]
exclude_patterns = ["_build"]
