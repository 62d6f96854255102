"""This course: its numbers (assignment.toml), its graded tests, and what they check."""
