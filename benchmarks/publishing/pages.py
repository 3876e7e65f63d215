"""Write what was measured into the pages: README.md and docs/, wherever a block's markers stand.

A block is what lies between ``<!-- benchmark: NAME -->`` and ``<!-- /benchmark -->``. To move a table is to move its
markers. Pictures are files in docs/images, which pages link to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"(<!-- benchmark: ([\w-]+) -->\n).*?(<!-- /benchmark -->)", re.DOTALL)


def pages() -> Iterator[Path]:
    """Return every page that may have markers."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def block_names(text: str) -> list[str]:
    """Return the names of the blocks that a page has markers for."""
    return [match[2] for match in _BLOCK.finditer(text)]


def with_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """Return a page's text with the blocks that it has markers for rendered anew; others stay as they are."""

    def rendered(match: re.Match[str]) -> str:
        return f"{match[1]}{blocks[match[2]]}\n{match[3]}" if match[2] in blocks else match[0]

    return _BLOCK.sub(rendered, text)


def write(blocks: Mapping[str, str]) -> None:
    """Write blocks into the pages that have their markers.

    Raises
    ------
    ValueError
        If no page has a block's markers.
    """
    texts = {page: page.read_text(encoding="utf-8") for page in pages()}
    marked = {name for text in texts.values() for name in block_names(text)}
    if missing := [name for name in blocks if name not in marked]:
        markers = ", ".join(f"<!-- benchmark: {name} --> <!-- /benchmark -->" for name in missing)
        raise ValueError(f"no page has a place for these; put their markers where they are to stand: {markers}")
    for page, text in texts.items():
        if (anew := with_blocks(text, blocks)) != text:
            page.write_text(anew, encoding="utf-8")


def picture(name: str) -> Path:
    """Return the file of a picture."""
    return ROOT / "docs" / "images" / f"{name}.svg"


def draw(pictures: Mapping[str, str]) -> None:
    """Write pictures, SVG images by their names."""
    for name, image in pictures.items():
        picture(name).parent.mkdir(parents=True, exist_ok=True)
        picture(name).write_text(image, encoding="utf-8")
