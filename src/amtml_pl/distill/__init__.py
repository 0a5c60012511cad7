"""Training step: the module, its step and loss components, and the costs of a fit."""
