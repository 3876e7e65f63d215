"""Settings of the site that `make docs` builds: Sphinx, over the pages where they lie, so that links hold in clones.

Sphinx, because the reference is made of the docstrings of 200 objects that load lazily, which autodoc imports as a user
does; MyST, because the pages are Markdown, as those beside the code are.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "nbdense"
author = "nbdense contributors"
project_copyright = author

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "plain_docstrings", "public_names"]

# The source folder is the clone.
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/api/*.md",
    "nbdense/README.md",
    "quant/README.md",
    "export/README.md",
    "benchmarks/README.md",
    "examples/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
exclude_patterns = [".*", "build", "dist"]

default_role = "py:obj"  # `quantize` in a docstring is a link where there is such a page
myst_heading_anchors = 3
autodoc_inherit_docstrings = False  # a method that meets its parent's contract is described there
autodoc_typehints = "none"  # the Parameters sections have them, in words
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_param = False  # types are words, and no links
napoleon_use_rtype = False

html_theme = "furo"
html_title = "nbdense"
html_extra_path = ["site"]  # the site's own front page leads to the pages' one
html_copy_source = False
html_show_sphinx = False
