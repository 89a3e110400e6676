"""``python -m federation``: the same as the command ``federation``."""

from federation.cli import main

main()
