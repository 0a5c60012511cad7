"""Run folders that were changed on purpose, by somebody who seals them again."""

import json

import torch
from omegaconf import OmegaConf

from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.records import sealed


def write_record(folder, record):
    """Writes a record with its digest."""
    (folder / "run.json").write_text(json.dumps(sealed(record)))


def change_record(folder, **changes):
    """Replaces some fields of a record."""
    write_record(folder, json.loads((folder / "run.json").read_text()) | changes)


def seal_again(folder):
    """Lets a record fit the files as they are now."""
    change_record(folder, files=RunFolder(folder).seal())


def replace_part(folder, node, value):
    """Gives a run another part in its configuration, and no state of a weighting."""
    config = OmegaConf.load(folder / "config.yaml")
    config[node] = value
    OmegaConf.save(config, folder / "config.yaml")
    file = folder / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    state = checkpoint["state_dict"]
    checkpoint["state_dict"] = {name: t for name, t in state.items() if not name.startswith("weighting.")}
    torch.save(checkpoint, file)
    seal_again(folder)
