"""Bits of held-out images under a run's model, code included, against JPEG XL at effort 9 on the same images.

The model's figure is the negative bound of ``vlae evaluate``: the bits that an ideal coder would need for code and pixels. JPEG XL's is the
size of its lossless files.

    python benchmarks/density.py RUN --json [--quick]
"""

import argparse
import json
from pathlib import Path

import imagecodecs
import numpy as np
import torch

from vlae.apps.evaluate import evaluate
from vlae.core.estimate import Estimate
from vlae.engine.measure import chosen
from vlae.engine.run import Run

AIM = 0.95


def jpeg_xl_bits(pixels: np.ndarray, effort: int) -> int:
    """Bits of one image, (h, w, c), as a lossless JPEG XL file."""
    plane = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    encoded = imagecodecs.jpegxl_encode(plane, lossless=True, effort=effort)
    assert np.array_equal(imagecodecs.jpegxl_decode(encoded), plane)
    return 8 * len(encoded)


def measure(run: Run, limit: int | None) -> dict[str, object]:
    """The row of a run."""
    result = evaluate(run, "test", limit=limit)
    images = run.images()
    numbers = chosen(images, "test", limit)
    theirs = np.array([jpeg_xl_bits(images.pixels(n), 9) / images.pixels(n).size for n in numbers.tolist()])
    jpeg_xl = Estimate.of(torch.from_numpy(theirs))
    ratio = result.bits_per_dim / (sum(t * images.pixels(n).size for t, n in zip(theirs, numbers.tolist(), strict=True)) / result.dims)
    return {
        "case": f"{run.settings.data.folder.name}, {result.n_images} test images, code included",
        "metric": "bits/dim",
        "value": result.bits_per_dim,
        "unit": "bits",
        "spread": f"se {result.bits_per_dim_se:.4f}; JPEG XL {jpeg_xl.value:.4f}, se {jpeg_xl.se:.4f}",
        "against": "JPEG XL effort 9",
        "ratio": float(ratio),
        "aim": f"<= {AIM}",
        "met": bool(ratio <= AIM),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="8 images: shows that it works")
    options = parser.parse_args()
    rows = [measure(Run.open(options.run), 8 if options.quick else None)]
    print(json.dumps(rows, indent=1) if options.json else rows[0])


if __name__ == "__main__":
    main()
