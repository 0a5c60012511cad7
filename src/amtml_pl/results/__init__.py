"""Open a completed run: its record, images, teachers, network and predictions."""
