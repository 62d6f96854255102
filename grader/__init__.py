"""Grades a submission without believing anything that it says.

The pytest process is trusted. It never imports, unpickles or executes anything of a submission and
needs no torch. `grader/worker.py` is the only place that meets a submission's code; it runs in a
sandbox (grader/sandbox.py) and talks over two pipes (grader/protocol.py).
"""
