"""The model as estimators of scikit-learn: for pipelines, grid searches and whoever has images as arrays."""

from vlae.estimators.detector import VLAEDetector as VLAEDetector
from vlae.estimators.encoder import VLAEEncoder as VLAEEncoder
