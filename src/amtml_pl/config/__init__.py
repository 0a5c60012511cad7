"""What may be typed: the schema, its checks, overrides and teachers' recipes; no torch."""

from amtml_pl.config.coefficients import register_coefficients

register_coefficients()  # before Hydra composes anything
