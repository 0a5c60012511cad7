"""One file per loss: a pure function on tensors, and a thin term that picks its arguments from the step."""
