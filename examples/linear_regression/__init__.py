"""A small assignment: a line through points, in NumPy."""
