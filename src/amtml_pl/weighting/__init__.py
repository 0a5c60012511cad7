"""Weighting schemes, one per file: how much each teacher counts for each sample."""
