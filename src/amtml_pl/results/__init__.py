"""A completed run, opened: its record, images, teachers, network and predictions."""
