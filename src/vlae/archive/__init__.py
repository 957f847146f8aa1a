"""The archive: an integer twin of a decoder, whose probabilities are the same on every machine, and what is coded with them."""
