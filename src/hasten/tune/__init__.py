"""A ``Plan`` enters; every candidate is tried in a process of its own; ``Trial`` records and a ``Verdict`` leave.

``candidates`` says what there is to try, ``search`` tries it, ``playoff`` times the leaders in turns, ``choose``
decides. ``worker`` is what runs in the candidate's process; nothing heavy is imported here, it would count as start-up.
"""
