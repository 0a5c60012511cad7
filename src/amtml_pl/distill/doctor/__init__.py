"""Doctor's checks: one file per question about a training step, and one for teachers."""
