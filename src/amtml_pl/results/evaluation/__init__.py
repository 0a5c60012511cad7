"""What the student of a completed run is worth."""
