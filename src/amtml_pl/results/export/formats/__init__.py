"""Files that hold a student alone: how each kind is written and opened again."""
