"""One file per weighting scheme: how much each teacher counts for each sample."""
