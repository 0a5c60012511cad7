"""Services of the machine: console, files, processes and signals."""
