"""Maps of evidence as pictures, on one scale for all images: dark where a part is as good ones are, bright where it is not."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from vlae.data.read import Pixels
from vlae.engine.inspection.regions import Region
from vlae.engine.retrieval.contact import as_bytes

COLOURS = "inferno"
# Black up to half of the threshold, the brightest at twice the threshold.
DARK, BRIGHT = 0.5, 2.0
FRAME = (255, 64, 32)
# Pictures of larger images are made smaller by a whole factor, of each square the strongest.
SIDE = 1200

RGB = npt.NDArray[np.uint8]


def heat(strength: npt.NDArray[np.float32], threshold: float) -> RGB:
    """A map of strength (H, W) in colours, (h, w, 3)."""
    step = _step(strength.shape)
    low = [-(-side // step) * step - side for side in strength.shape]
    padded = np.pad(strength, ((0, low[0]), (0, low[1])))
    strongest = padded.reshape(padded.shape[0] // step, step, -1, step).max((1, 3))
    scaled = ((strongest / threshold - DARK) / (BRIGHT - DARK)).clip(0, 1)
    colours = matplotlib.colormaps[COLOURS](np.rint(255 * scaled).astype(np.uint8), bytes=True)
    return np.ascontiguousarray(colours[..., :3])


def marked(pixels: Pixels, depth: int, found: Sequence[Region]) -> RGB:
    """An image (H, W, C) with a frame around each region, (h, w, 3)."""
    step = _step(pixels.shape[:2])
    dark, light = (int(pixels.min()), max(int(pixels.max()), int(pixels.min()) + 1)) if depth == 16 else (0, 2**depth - 1)
    shown = as_bytes(pixels[::step, ::step], depth, dark, light)
    picture = Image.fromarray(np.broadcast_to(shown, (*shown.shape[:2], 3)).copy())
    draw = ImageDraw.Draw(picture)
    for r in found:
        # The frame lies around the region, not on it.
        corners = (r.left // step - 2, r.top // step - 2, (r.left + r.width) // step + 1, (r.top + r.height) // step + 1)
        draw.rectangle(corners, outline=FRAME)
    return np.asarray(picture)


def side_by_side(pictures: Sequence[RGB], gap: int = 4) -> RGB:
    """Pictures of one height in a row, on a white ground."""
    height = max(len(p) for p in pictures)
    padded = [np.pad(p, ((0, height - len(p)), (0, gap), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded, axis=1)[:, :-gap]


def _step(shape: tuple[int, ...]) -> int:
    return -(-max(shape) // SIDE)
