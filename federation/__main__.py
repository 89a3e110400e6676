"""``python -m federation``: the same as the command ``federation``, completion included."""

from federation.cli import main

main(prog_name="federation")
