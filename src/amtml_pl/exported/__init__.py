"""Files that hold a student alone, its normalisation included: how each kind is written and opened again."""
