"""Let ``coef`` take the name of any term: each file of ``conf/loss`` brings its own default."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf


def register_coefficients() -> None:
    """Make ``coefficients``, which conf/train.yaml builds on, known to Hydra.

    No YAML can say that a node takes new keys, as ``coef.kd=2`` does in a run without the term ``kd``.
    """
    config = OmegaConf.create({"coef": DictConfig({}, flags={"struct": False})})
    ConfigStore.instance().store("coefficients", config)
