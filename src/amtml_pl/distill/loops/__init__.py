"""Methods that change the training loop, one per file."""
