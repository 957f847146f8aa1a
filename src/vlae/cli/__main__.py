"""``python -m vlae.cli``."""

from vlae.cli import main

main()
