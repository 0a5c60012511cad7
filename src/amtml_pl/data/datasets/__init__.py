"""Sources of data sets, one file each: find, fetch and decode the raw data."""
