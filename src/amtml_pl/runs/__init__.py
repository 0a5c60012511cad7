"""What a run folder is called and what it holds; no torch."""
