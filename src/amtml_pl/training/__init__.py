"""Run of an experiment, from its plan to its record."""
