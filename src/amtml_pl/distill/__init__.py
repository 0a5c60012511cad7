"""Training step: the module, its step and objectives, and the costs of a fit."""
