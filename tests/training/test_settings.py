"""A root key is declared in the schema, has its default in train.yaml, and becomes a typed field."""

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from amtml_pl.config.paths import config_directory
from amtml_pl.config.schema import GROUPS, KEYS
from amtml_pl.training.settings import settings_of


def test_settings_need_every_declared_key_and_no_other(configure):
    config = configure("experiment=digits", "method=amtml_adapter")
    settings_of(OmegaConf.masked_copy(config, [*KEYS]))
    unread = []
    for key in KEYS:
        try:
            settings_of(OmegaConf.masked_copy(config, [other for other in KEYS if other != key]))
        except OmegaConfBaseException:  # also for a key that only other nodes interpolate
            continue
        unread.append(key)
    assert unread == ["traceback", "logger"]  # `CommandJob.reporting` reads it; there may be no logger


def test_train_yaml_has_the_declared_keys_in_their_order():
    tree = OmegaConf.load(config_directory() / "train.yaml")
    groups = [name for choice in tree.defaults if OmegaConf.is_config(choice) for name in choice]
    assert [name for name in groups if name in GROUPS] == [name for name in GROUPS if name != "coef"]
    assert [key for key in tree if key in KEYS.keys() - GROUPS] == [key for key in KEYS if key not in GROUPS]
    assert [*tree.cache] == [*KEYS["cache"].keys]
    assert [*tree.paths] == [*KEYS["paths"].keys]
