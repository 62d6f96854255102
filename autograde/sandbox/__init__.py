"""Runs a hostile process where it can neither see, reach nor outlive anything."""
