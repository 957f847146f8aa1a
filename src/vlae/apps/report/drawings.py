"""The window of the decoder, drawn on an image."""

import html
from collections.abc import Collection

from vlae.apps.report.findings import Site
from vlae.apps.report.pictures import Picture, Range, picture
from vlae.core.taps import Offset

SEEN, WRITTEN = "#0072b2", "#e69f00"
# The enlarged part reaches so many pixels beyond the window, and is at least so many wide and high.
AROUND = 3
LEAST = 16


def zoomed(site: Site, levels: Range, alt: str) -> str:
    """The surroundings of the window, enlarged; what the decoder does not see is pale."""
    height, width = site.image.bits.shape
    top, bottom, left, right = _box(site)
    side = max(LEAST, bottom - top + 2 * AROUND, right - left + 2 * AROUND)
    top, bottom = _room(top, bottom, side, height)
    left, right = _room(left, right, side, width)
    pixels = picture(site.image.x[:, top:bottom, left:right], levels)
    hidden = [(i, j) for i in range(top, bottom) for j in range(left, right) if (i, j) not in site.seen and (i, j) != (site.row, site.column)]
    marks = (
        f'<path d="{_cells(hidden)}" fill="#fff" fill-opacity=".62"/>',
        f'<path d="{outline(site.seen)}" fill="none" stroke="#fff" stroke-width="5" {_THIN}/>',
        f'<path d="{outline(site.seen)}" fill="none" stroke="{SEEN}" stroke-width="2.5" {_THIN}/>',
        f'<rect x="{site.column}" y="{site.row}" width="1" height="1" fill="{WRITTEN}" stroke="#fff" stroke-width="1.5" {_THIN}/>',
    )
    return _svg((left, top, right - left, bottom - top), (left, top), pixels, marks, alt)


def at_scale(site: Site, levels: Range, alt: str) -> str:
    """The image with a box around the window and the pixel."""
    height, width = site.image.bits.shape
    top, bottom, left, right = _box(site)
    box = f'x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" fill="none" {_THIN}'
    marks = (f'<rect {box} stroke="#fff" stroke-width="4.5"/>', f'<rect {box} stroke="{SEEN}" stroke-width="2"/>')
    return _svg((0, 0, width, height), (0, 0), picture(site.image.x, levels), marks, alt)


_THIN = 'vector-effect="non-scaling-stroke" stroke-linejoin="round"'


def outline(cells: Collection[Offset]) -> str:
    """The border of a set of pixels as an SVG path: the sides that only one of them has.

    >>> outline({(0, 0)})
    'M0 0h1M0 1h1M0 0v1M1 0v1'
    """
    across = sorted({(i + d, j) for i, j in cells for d in (0, 1) if ((i, j) in cells) != ((i - 1 + 2 * d, j) in cells)})
    down = sorted({(i, j + d) for i, j in cells for d in (0, 1) if ((i, j) in cells) != ((i, j - 1 + 2 * d) in cells)})
    return "".join([f"M{j} {i}h1" for i, j in across] + [f"M{j} {i}v1" for i, j in down])


def _cells(cells: Collection[Offset]) -> str:
    return "".join(f"M{j} {i}h1v1h-1z" for i, j in cells)


def _box(site: Site) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the window together with its pixel."""
    rows, columns = zip((site.row, site.column), *site.seen, strict=True)
    return min(rows), max(rows) + 1, min(columns), max(columns) + 1


def _room(low: int, high: int, side: int, size: int) -> tuple[int, int]:
    """A stretch of ``side`` pixels, or all there are, around a shorter one and inside the image."""
    first = max(0, min((low + high - side) // 2, size - side))
    return first, min(size, first + side)


def _svg(view: tuple[int, int, int, int], corner: tuple[int, int], pixels: Picture, marks: Collection[str], alt: str) -> str:
    uri, width, height = pixels
    image = f'<image href="{uri}" x="{corner[0]}" y="{corner[1]}" width="{width}" height="{height}"/>'
    box = " ".join(map(str, view))
    return f'<svg viewBox="{box}" role="img" aria-label="{html.escape(alt)}">{image}{"".join(marks)}</svg>'
