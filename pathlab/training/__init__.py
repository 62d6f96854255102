"""One training: its command line, recipe, device, run folder, scores and pictures."""
