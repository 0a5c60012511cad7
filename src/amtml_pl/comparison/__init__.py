"""Comparing completed runs: from their folders to groups, statistics, tables, figures and a page."""
