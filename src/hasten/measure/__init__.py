"""An open session and its inputs enter; a ``Measurement`` and its raw samples leave.

``clock`` times calls, ``sampling`` decides how many, ``statistics`` and ``jitter`` say what the samples mean,
``memory`` what the process holds, ``session`` puts them together.
"""
