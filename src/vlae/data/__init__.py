"""Images in and out: reading, splits, the memory-mapped cache, batches."""
