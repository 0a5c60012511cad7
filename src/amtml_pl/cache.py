"""Build, verify, list and tidy teachers' cached outputs: ``python -m amtml_pl.cache action=...``."""

from __future__ import annotations

from amtml_pl.config.checks import check_constructors, check_values
from amtml_pl.config.command import CommandJob, command
from amtml_pl.config.command_keys import CACHE_COMMAND


@command("cache")
def main(job: CommandJob) -> None:
    """Run one action on the cache; exit with status 2 if it is damaged."""
    with job.reporting(resumes=True):
        options = job.take(CACHE_COMMAND)
        check_values(job.config)
        from amtml_pl.training.cache_actions import CacheCommand, act
        from amtml_pl.training.settings import settings_of

        check_constructors(job.config)
        act(settings_of(job.config), CacheCommand(job.experiment, job.overrides), **options)


if __name__ == "__main__":
    main()
