"""Teachers' stored outputs; read the files in the order storage, store, build, serve, trust."""
