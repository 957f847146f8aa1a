"""Put CIFAR-10 together as one file of arrays, cifar10.npz, from mosaics of 1,000 images each: what the cifar-10 recipes are trained on.

The mosaics are lossless WebP pictures of 25 x 40 images in cifar10_a.zip and cifar10_b.zip: train_NN.webp holds the official training images
NN*1000 to NN*1000+999, test1000.webp the first 1,000 test images. The last 1,000 training images become validation images. ``--subset N`` takes
the first N training images alone.

    python benchmarks/cifar.py FOLDER_OF_ZIPS OUTPUT_FOLDER [--subset N]
"""

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

ROWS, COLUMNS, SIDE, VALIDATION = 25, 40, 32, 1000


def cut(mosaic: bytes) -> np.ndarray:
    """The images of a mosaic, (1000, 32, 32, 3)."""
    pixels = np.asarray(Image.open(io.BytesIO(mosaic)).convert("RGB"))
    return pixels.reshape(ROWS, SIDE, COLUMNS, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(-1, SIDE, SIDE, 3)


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """Images and labels of the three splits."""
    mosaics, labels = {}, {}
    for name in ("cifar10_a.zip", "cifar10_b.zip"):
        with zipfile.ZipFile(folder / name) as file:
            mosaics |= {member: cut(file.read(member)) for member in file.namelist() if member.endswith(".webp")}
            labels |= {member: np.load(io.BytesIO(file.read(member)), allow_pickle=False) for member in file.namelist() if member.endswith(".npy")}
    x = np.concatenate([mosaics[name] for name in sorted(mosaics) if name.startswith("train_")])
    y, test, test_y = labels["train_labels.npy"], mosaics["test1000.webp"], labels["test1000_labels.npy"]
    assert len(x) == len(y) == 50 * ROWS * COLUMNS, "both files are needed, whole"
    rest = slice(0, len(x) - VALIDATION)
    return {"train": x[rest], "train_y": y[rest], "valid": x[-VALIDATION:], "valid_y": y[-VALIDATION:], "test": test, "test_y": test_y}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder of cifar10_a.zip and cifar10_b.zip")
    parser.add_argument("output", type=Path, help="the folder of cifar10.npz")
    parser.add_argument("--subset", type=int, help="so many training images alone")
    options = parser.parse_args()
    found = arrays(options.source)
    if options.subset:
        found |= {name: found[name][: options.subset] for name in ("train", "train_y")}
    options.output.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.output / "cifar10.npz", **found)
    print(f"{options.output / 'cifar10.npz'}: {', '.join(f'{len(found[split])} {split}' for split in ('train', 'valid', 'test'))} images")


if __name__ == "__main__":
    main()
