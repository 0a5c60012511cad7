"""A callback of Hydra's that keeps each state of a sweep's leaderboard."""

from pathlib import Path

from hydra.experimental.callback import Callback


class Look(Callback):
    def __init__(self, sweeps, kept):
        self.sweeps, self.kept = Path(sweeps), Path(kept)

    def on_job_end(self, config, job_return, **_):
        (leaderboard,) = self.sweeps.glob("*/leaderboard.csv")
        self.kept.mkdir(exist_ok=True)
        (self.kept / f"{config.hydra.job.num}.csv").write_text(leaderboard.read_text())
