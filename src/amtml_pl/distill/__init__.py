"""The training step: the module, its step and objectives, and what a fit accounts for."""
