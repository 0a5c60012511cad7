"""TensorBoard's view of a run: grouped curves, figures, a table of runs, a card."""
