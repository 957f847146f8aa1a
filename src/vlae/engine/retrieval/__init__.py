"""Images found by their codes: those of a run, of a folder or of an archive."""
