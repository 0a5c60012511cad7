"""What TensorBoard shows of a run: curves by whose they are, figures, a table of runs, a card."""
