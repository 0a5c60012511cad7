"""Build, verify, list and tidy teachers' cached outputs: ``python -m amtml_pl.cache action=...``."""

from __future__ import annotations

from amtml_pl.config.checks import check_command, check_constructors, check_values
from amtml_pl.config.command import Job, command
from amtml_pl.config.command_keys import CACHE_COMMAND


@command("cache")
def main(job: Job) -> None:
    """Run one action on the cache.

    Exit status: 0 done, 2 a user's mistake or a damaged cache.
    """
    with job.reporting(resumes=True):
        asked = job.take(*CACHE_COMMAND)
        check_command(asked, CACHE_COMMAND)
        check_values(job.config)
        from amtml_pl.training.cache_actions import CacheCommand, act
        from amtml_pl.training.settings import settings_of

        check_constructors(job.config)
        act(settings_of(job.config), CacheCommand(job.experiment, job.overrides), **asked)


if __name__ == "__main__":
    main()
