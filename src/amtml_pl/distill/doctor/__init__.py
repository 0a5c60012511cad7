"""The doctor's checks: one file per question that is put to a training step, and one for teachers."""
