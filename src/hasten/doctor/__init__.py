"""The doctor: finds slow habits in code that calls models, and in models; mends what can be mended safely.

Files enter (``run.examine``) or a graph (``graphs.examine_model``); ``Finding`` records leave. One rule, one file, in
``rules``. Nothing that is read is ever imported or run.
"""
