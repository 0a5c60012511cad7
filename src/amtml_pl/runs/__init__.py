"""Name a run's folder and describe its content; imports no torch."""
