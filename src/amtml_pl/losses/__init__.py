"""Losses, one per file: a pure function, and a term that gets its arguments."""
