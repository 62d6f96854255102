"""What a process does to itself before it becomes the worker. Linux only.

The folder is all that confines itself: it imports nothing but itself and the standard library,
because bubblewrap shows it to a Python that sees nothing else of the repository. It starts in
enter.py. Constants carry the names of the headers linux/{audit,capability,filter,landlock,mount,
prctl,sched,seccomp}.h and sys/mount.h; system call numbers are those of asm/unistd_64.h (x86_64)
and asm-generic/unistd.h (aarch64).
"""
