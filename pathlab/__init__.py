"""The plumbing of PathLab: what a student uses but does not have to understand.

Files, data sets, run folders, devices, pictures and the command line. The modules with ideas in
them are flat at the top of the repository.
"""
