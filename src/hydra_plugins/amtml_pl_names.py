"""Register the resolvers, the coefficients and the teachers that YAML files refer to."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from operator import floordiv, truediv
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from amtml_pl.config.default_augmentation import default_operations
from amtml_pl.config.help_page import help_page
from amtml_pl.runs.identity import resolve_run_folder, share_of_cores


def first_given(first: object, second: object) -> object:
    """Return the first value unless it is null."""
    return second if first is None else first


def of_seed(seeds: object, seed: object) -> object:
    """Return the teachers' seed of a run; 0 for values that the check rejects later."""
    valid = isinstance(seeds, Sequence) and not isinstance(seeds, str) and seeds and isinstance(seed, int)
    return seeds[seed % len(seeds)] if valid else 0


OmegaConf.register_new_resolver("amtml.default_operations", default_operations, replace=True)
OmegaConf.register_new_resolver("amtml.first_given", first_given, replace=True)
OmegaConf.register_new_resolver("amtml.help", help_page, replace=True)
OmegaConf.register_new_resolver("amtml.of_seed", of_seed, replace=True)
OmegaConf.register_new_resolver("amtml.quotient", floordiv, replace=True)
OmegaConf.register_new_resolver("amtml.ratio", truediv, replace=True)
OmegaConf.register_new_resolver("amtml.run_folder", resolve_run_folder, replace=True)
OmegaConf.register_new_resolver("amtml.share_of_cores", share_of_cores, replace=True)
# YAML cannot allow new keys in a node, as for coef.kd=2 in a run without the term kd.
new_keys = DictConfig({}, flags={"struct": False})
ConfigStore.instance().store("amtml_coefficients", OmegaConf.create({"coef": new_keys}))


class StudentsAsTeachers(SearchPathPlugin):
    """Offers a teacher for each network without a file in ``conf/teacher``."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Store the content of such a file: the network, and the keys of every teacher."""
        for folder in configuration_folders(search_path):
            for network in (folder / "student").glob("*.yaml"):
                name = network.stem
                if not (folder / "teacher" / network.name).exists():
                    parts = [{f"source@{name}": "trained"}, {f"/student@{name}": name}, "_self_"]
                    ConfigStore.instance().store(name, {"defaults": parts}, group="teacher")


def configuration_folders(search_path: ConfigSearchPath) -> Iterator[Path]:
    """Yield the project's folder, and the user's, which Hydra adds only after its plugins."""
    for place in search_path.get_path():
        if place.path is not None and "://" not in place.path.removeprefix("file://"):
            yield Path(place.path.removeprefix("file://"))
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    typed = parser.parse_known_args()[0].config_dir
    if typed is not None:
        yield typed
