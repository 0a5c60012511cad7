"""``python -m amtml_pl.cache action=...``: builds, verifies, lists and tidies teachers' cached outputs."""

from __future__ import annotations

import hydra
from hydra.core.hydra_config import HydraConfig
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
        from amtml_pl.training.cache_actions import Command, act
        from amtml_pl.training.settings import settings_of

        check_constructors(config)
        hydra_config = HydraConfig.get()
        command = Command(hydra_config.runtime.choices.get("experiment"), list(hydra_config.overrides.task))
        act(settings_of(config), command, **asked)


if __name__ == "__main__":
    main()
