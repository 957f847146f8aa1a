"""What is unlike good parts, in bits: evidence, maps and regions, and thresholds that keep their promise."""
