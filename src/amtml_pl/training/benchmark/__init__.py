"""Measured cost of a training step."""
