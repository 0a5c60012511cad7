"""One file per method that changes the training loop: several networks, or optimisers that step apart."""
