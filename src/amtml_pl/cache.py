"""``python -m amtml_pl.cache action=...``: builds, verifies, lists and tidies teachers' cached outputs."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig, open_dict

from amtml_pl.config.checks import check_command, check_constructors, check_values, plain
from amtml_pl.config.command import progress, reporting, start
from amtml_pl.config.command_keys import CACHE_COMMAND
from amtml_pl.config.paths import config_directory
from amtml_pl.runs.identity import register_resolvers

register_resolvers()


def main() -> None:
    """The command line. Exit status: 0 done, 2 a mistake of the user's or a damaged cache."""
    start(run)


@hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="cache")
def run(config: DictConfig) -> None:
    """One action on the cache."""
    progress.begun = True
    with reporting("amtml_pl.cache", debug=config.get("debug", False)):
        with open_dict(config):
            asked = plain({key: config.pop(key, None) for key in CACHE_COMMAND})
        check_command(asked, CACHE_COMMAND)
        check_values(config)
        # only here: torch takes seconds, in which a mistake is reported, and Ctrl-C ends, like everywhere
        from amtml_pl.training.cache_actions import act

        check_constructors(config)
        act(config, **asked)


if __name__ == "__main__":
    main()
