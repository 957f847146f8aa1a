"""vlae: learn a short code of images that keeps the information you choose."""

__version__ = "0.1.0"
