"""Evaluate the student of a completed run."""
