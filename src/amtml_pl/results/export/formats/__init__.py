"""The formats of exported students: how each is written and opened."""
