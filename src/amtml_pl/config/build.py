"""What a node of the configuration describes, built."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from amtml_pl.config.allowed_targets import refuse_foreign_targets
from amtml_pl.errors import UserError


def build(node: DictConfig | None, *, partial: bool = False) -> Any:  # noqa: ANN401
    """The object that a node describes, from plain values; None for no node.

    Args:
        node: ``_target_`` and its arguments.
        partial: whether to leave the call to the caller, who adds arguments.

    Raises:
        UserError: if a ``_target_`` of it may not be named, or its constructor refuses the values.
    """
    if node is None:
        return None
    refuse_foreign_targets(OmegaConf.to_container(node, resolve=True))
    try:
        return instantiate(node, _convert_="all", **({"_partial_": True} if partial else {}))
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{node.get('_target_')} cannot be built: {error.__cause__ or error}") from error
