"""What decides points: checks of models, epochs and trainings against NumPy, on private images."""
