"""Leave out the teachers of a run whose method has none."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, open_dict

from amtml_pl.config.value_origin import content_of, folders_of_files


def leave_out_teachers(config: DictConfig, method: str | None) -> list[str]:
    """Remove teachers if the method's file selects none, and return their names.

    They stay if the command selects other loss terms than the file, as these may need them.
    """
    loss, teachers = config.get("loss"), config.get("teacher")
    if not isinstance(loss, DictConfig) or not isinstance(teachers, DictConfig):  # the check reports them
        return []
    files = (folder / "method" / f"{method}.yaml" for folder in folders_of_files())
    about: Any = next((content_of(file) for file in files if file.is_file()), {})
    own: tuple[dict[str, list[Any]], ...] = ({"override /teacher": []}, {"override /loss": [*loss]})
    if any(choice not in about.get("defaults", []) for choice in own):
        return []
    ignored = [str(name) for name in teachers]
    with open_dict(config):
        config.teacher = {}
    return ignored
