"""Small assignments on the same engine."""
