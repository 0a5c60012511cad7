"""Several runs as one multirun: its jobs, its leaderboard, its search."""
