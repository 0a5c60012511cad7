"""Frozen teachers: their networks, their weights, and the cache of their outputs."""
