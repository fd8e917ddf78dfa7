"""``python -m hasten.cli``, where the ``hasten`` program is not on the path."""

from hasten.cli import main

main()
