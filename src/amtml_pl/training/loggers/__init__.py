"""Loggers of a run: `conf/logger/`."""
