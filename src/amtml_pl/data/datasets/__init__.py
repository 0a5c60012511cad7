"""One file per data set source: each finds, fetches and decodes the raw data of one data set."""
