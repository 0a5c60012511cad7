"""Declare, check and compose the configuration; imports no torch."""
