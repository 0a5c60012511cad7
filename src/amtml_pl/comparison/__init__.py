"""Compare completed runs: groups, statistics, tables, figures and a page."""
