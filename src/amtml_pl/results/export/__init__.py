"""Export the student of a completed run, and check the file against the run."""
