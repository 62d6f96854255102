"""The plumbing of PathLab: what a student uses but does not have to understand.

Files, data sets, run folders, devices, pictures and the command line. The modules with ideas in
them are flat at the top of the repository.

Programs import this package before torch, whose threads read the setting below when they start.
"""

import os

# Threads that wait for each other sleep instead of spinning. Spinning is a little faster on an idle
# machine, but makes a training ten times slower on one that is shared (docs/measurements.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
