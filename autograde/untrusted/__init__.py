"""All of the engine that enters the sandbox, and nothing else.

Trusted code imports the protocol alone. The files are copied beside each other, together with the
course's operations, so they import each other by their bare names there.
"""
