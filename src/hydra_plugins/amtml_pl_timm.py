"""Offer each network of timm as ``student=timm/MODEL`` and ``teacher=[timm/MODEL]``, without a YAML file."""

from __future__ import annotations

import builtins
import logging
from contextlib import suppress
from functools import lru_cache
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

STUDENT, TEACHER = "student/timm/", "teacher/timm/"


class TimmSearchPath(SearchPathPlugin):
    """Adds the source of such choices."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append it, so that files come first."""
        search_path.append("timm", f"{TimmNetworks.scheme()}://")


class TimmNetworks(ConfigSource):
    """Source of the content that a YAML file for a network of timm would have."""

    @staticmethod
    def scheme() -> str:
        """Return the beginning of its entry in Hydra's search path."""
        return "timm"

    def available(self) -> bool:
        """Return True: a missing package is reported by the check of the constructor."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Return True for the two groups; Hydra lists their choices by no name."""
        return f"{config_path}/" in (STUDENT, TEACHER)

    def is_config(self, config_path: str) -> bool:
        """Return True for any name, so that an unknown one is reported with similar ones."""
        return config_path.startswith((STUDENT, TEACHER))

    def list(self, config_path: str, results_filter: ObjectType | None) -> builtins.list[str]:
        """Return no choices: there are more than a thousand."""
        return []

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the network's file, or the teacher's that refers to it."""
        model = config_path.removesuffix(".yaml").rpartition("/")[2]
        if config_path.startswith(TEACHER):
            name = model.replace(".", "_")  # a key has no dot
            parts = [{f"/teacher/source@{name}": "trained"}, {f"/student@{name}": f"timm/{model}"}, "_self_"]
            content: dict[str, Any] = {"defaults": parts}
        else:
            content = network_file(model)
        header = {"package": config_path.partition("/")[0]}
        return ConfigResult(provider="timm", path="timm://", config=OmegaConf.create(content), header=header)


@lru_cache
def network_file(model: str) -> dict[str, Any]:
    """Return the content of a network's file, whose taps are those of timm's ``feature_info``."""
    modules, size = features_and_size(model)
    return {
        "network": {
            "_target_": "timm.create_model",
            "model_name": model,
            "pretrained": "${oc.select:..pretrained,false}",  # of a teacher
            "num_classes": "${dataset.num_classes}",
        },
        "stages": modules,
        "hint": modules[-1] if modules else None,
        "input_size": size,
    }


def features_and_size(model: str) -> tuple[list[str], int | None]:
    """Return a model's modules that timm calls features, and its image size.

    The modules are in order from first to last, and none if unknown. The size is None for a model that takes
    images of several sizes.
    """
    with suppress(Exception):  # such as a model that cannot be built without numbers
        import timm  # only here: it imports torch
        import torch

        logging.getLogger("timm").setLevel(logging.ERROR)
        with torch.device("meta"):
            network = timm.create_model(model)
        listed = getattr(network.feature_info, "info", network.feature_info)
        found = [str(each["module"]) for each in listed]
        existing = dict(network.named_modules())
        about = network.pretrained_cfg
        size = about["input_size"][-1] if about.get("fixed_input_size") else None
        return (found if all(name in existing for name in found) else []), size
    return [], None
