"""An autograder that believes nothing that a submission says, for any course.

The pytest process is trusted. It never imports, unpickles or executes anything of a submission.
`untrusted/worker.py` is the only place that meets a submission's code; it runs in a sandbox
(`sandbox/`) and talks over two pipes (`untrusted/protocol.py`). The course, its tests and numbers
are elsewhere: see grader/, and examples/ for a smaller one.
"""
