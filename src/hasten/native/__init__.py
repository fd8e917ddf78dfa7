"""The native compiler: a fixed-shape graph enters, a shared library that answers in microseconds leaves.

``lower`` turns nodes into steps (``program``: strided views, one class a kernel family under ``kernels/``) · ``fuse``
folds element-wise work into its neighbours · ``plan`` lays all temporaries into one arena · ``emit`` writes the C, a
pure function of the program · ``build`` compiles it. ``sessions/native.py`` runs the result.
"""
