"""Convert nodes of the configuration to plain values, or build their objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from amtml_pl.config.allowed_targets import refuse_foreign_targets
from amtml_pl.errors import UserError, first_line

DOWNLOAD = (
    "connect this machine to the network to download pretrained weights, or load a file with "
    "teacher.NAME.weights.path=FILE and teacher.NAME.network.pretrained=false"
)
Config: TypeAlias = DictConfig  # the composed configuration, for modules that know no OmegaConf


def as_config(node: DictConfig | Mapping[str, Any]) -> DictConfig:
    """Return a node as one of OmegaConf."""
    return node if isinstance(node, DictConfig) else OmegaConf.create(dict(node))


def plain_values(node: DictConfig | Mapping[str, Any], *, resolve: bool = True) -> dict[str, Any]:
    """Return a node as plain values, with interpolations resolved or as written."""
    values: Any = OmegaConf.to_container(as_config(node), resolve=resolve)
    return dict(values)


def resolved(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain values; raise a UserError for a missing or unresolved one."""
    try:
        values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise unresolved(error) from error
    return dict(values)


def unresolved(error: OmegaConfBaseException, key: str = "") -> UserError:
    """Return the message for a key whose value is missing or refers to nothing."""
    key = error.full_key or key
    return UserError(f"{key} cannot be resolved: {first_line(error)}", fix=f"{key}=VALUE")


def build_object(node: DictConfig | Mapping[str, Any] | None, *, partial: bool = False) -> Any:
    """Build the object that a node describes; None for no node.

    Args:
        node: ``_target_`` and its arguments; plain values too.
        partial: True to return a function that takes more arguments.

    Raises:
        UserError: if a ``_target_`` is not an allowed constructor, or its constructor refuses the values.
    """
    if node is None:
        return None
    config = as_config(node)
    refuse_foreign_targets(plain_values(config))
    try:
        return instantiate(config, _convert_="all", **({"_partial_": True} if partial else {}))
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        fix = DOWNLOAD if isinstance(error.__cause__, OSError) else None
        what = f"{config.get('_target_')} cannot be built: {error.__cause__ or error}"
        raise UserError(what, fix=fix) from error


@dataclass(frozen=True)
class ObjectSpec:
    """A constructor and its arguments as plain values; None builds None."""

    node: Mapping[str, Any] | None

    def build(self) -> Any:
        """Call the constructor and return the object."""
        return build_object(self.node)

    def maker(self) -> Any:
        """Return the constructor with its arguments bound; the caller adds the others."""
        return build_object(self.node, partial=True)

    def plain(self) -> dict[str, Any]:
        """Return the constructor's name and arguments as plain values; empty for None."""
        return {} if self.node is None else dict(self.node)

    @property
    def target(self) -> str | None:
        """Dotted name of the constructor."""
        return self.plain().get("_target_")

    def __str__(self) -> str:
        """Return a short form, such as ``SGD(lr=0.1, momentum=0.9)``."""
        if not (values := self.plain()):
            return "none"
        arguments = ", ".join(f"{key}={value}" for key, value in values.items() if not key.startswith("_"))
        return f"{str(values['_target_']).rpartition('.')[2]}({arguments})"
