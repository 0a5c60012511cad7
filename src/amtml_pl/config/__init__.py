"""What may be typed: the schema, its checks, overrides and teachers' recipes; no torch."""
