"""Terms and steps for the tests of losses."""

import re
from dataclasses import replace

import torch
import yaml
from omegaconf import OmegaConf
from torch import nn

from amtml_pl.config.build import build_object
from amtml_pl.config.paths import config_directory
from amtml_pl.models.hint_statistics import HintStatistics
from amtml_pl.types import OfferedFeatures, TensorShapes
from steps import make_step

STAGES = {"layer1": (4, 8, 8), "layer2": (6, 4, 4), "layer3": (8, 2, 2)}


ROOT = {
    "temperature": 4.0, "mixture": "probabilities", "trainer": {"max_epochs": 12},
    "student": {"stages": [*STAGES], "hint": "layer3"},
}  # fmt: skip
CHOICES = sorted(file.stem for file in (config_directory() / "loss").glob("*.yaml"))
# Other values for a class that has a file.
VARIANTS = re.compile("published|regression_fitnet|kd_standardized")
OWN_FILES = [
    file
    for group in ("loss", "weighting")
    for file in sorted((config_directory() / group).glob("*.yaml"))
    if not VARIANTS.search(file.stem)
]


def node_of(file):
    """Return the term or weighting that a YAML file describes, with its interpolations."""
    content = yaml.safe_load(file.read_text())
    return next(iter(content["loss"].values())) if "loss" in content else content


def term_of(choice, changes=(), **root):
    """Return the term of conf/loss/<choice>.yaml for a student with the stages above.

    Args:
        choice: name of the file.
        changes: to the term's arguments.
        root: keys of the root.
    """
    node = node_of(config_directory() / f"loss/{choice}.yaml") | dict(changes)
    return build_object(OmegaConf.create({**ROOT, **root, "node": node}).node)


def built(term, B=6, M=3, K=5, **more):
    """Return a built term and a step with M teachers whose maps differ in size."""
    offered = {f"t{m}": OfferedFeatures("layer3", tuple(STAGES)) for m in range(M)}
    maps = {}
    for name in term.hints(offered):
        tap, _, how = name.partition("/")[2].partition("@")
        C, H, W = STAGES[tap]
        maps[name] = (
            1 if how == "attention" else C + 3,
            *((int(how), int(how)) if how.isdigit() else (H, W)),
        )
    taps = {tap: STAGES[tap] for tap in term.student_taps()}
    torch.manual_seed(0)
    term.build(TensorShapes(K, tuple(offered), taps, maps, offered))
    step = make_step(B, M, K, taps=taps, hints=maps, **more)
    dtype = step.student.logits.dtype
    step = replace(step, weighting_norm=torch.tensor(9.0, dtype=dtype, requires_grad=True))
    term.set_teacher_heads({name: Classify(C, K).to(dtype) for name, (C, _, _) in maps.items()})
    statistics = {name: HintStatistics.of(hint) for name, hint in step.teachers.hints.items()}
    term.set_hint_statistics(statistics)
    return term.to(dtype), step


class Classify(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.fc = nn.Linear(channels, classes).requires_grad_(False)

    def forward(self, feature):
        return self.fc(feature.mean(dim=(2, 3)))


def drawn_alike(term, step):
    """Return the term's value for the same random triplets, where it draws any."""
    torch.manual_seed(3)
    return term(step)
