"""A whole class: who handed in what, gradings, the gradebook, Gradescope, the handout."""
