"""The student of a completed run as a file, checked against the run first."""
