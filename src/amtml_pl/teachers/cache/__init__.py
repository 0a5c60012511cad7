"""Teachers' outputs, computed once and kept: read in the order storage, store, build, serve, trust."""
