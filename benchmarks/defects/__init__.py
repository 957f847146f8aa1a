"""What the inspection benchmark is made of: the sets of images, the detectors to compare with, the metrics, and changes that are no defects."""
