"""Start a student from the weights of a run or of a file (``init_from``)."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.checkpoint_file import mismatched_tensors
from amtml_pl.teachers.weights import load_weights, read_state_dict

FIX = "set init_from to a completed run of the same student, or to a safetensors or torch file of its weights"


def load_initial_weights(network: nn.Module, start: Path, classes: int) -> None:
    """Load the student's initial weights; raise a UserError unless all of them fit.

    Args:
        network: the student's bare network.
        start: a run folder, whose selected epoch is taken, or a file.
        classes: K.
    """
    file = weights_of_run(start) if start.is_dir() else start
    try:
        load_weights(network, file)
    except UserError as error:  # its advice is for teachers
        refuse_other_classes(network, file, classes)
        raise UserError(f"init_from={start} cannot be loaded. {error.what}", fix=FIX) from error


def weights_of_run(folder: Path) -> Path:
    """Return the weights file of a completed run."""
    run = RunFolder(folder)
    if (record := run.completed()) is None:
        raise UserError(f"init_from={folder} is not the folder of a completed run.", fix=FIX)
    run.refuse_changed(record, run.weights_file)
    return run.weights_file


def refuse_other_classes(network: nn.Module, file: Path, classes: int) -> None:
    """Raise a UserError if only the classifier of a file does not fit."""
    try:
        given, expected = read_state_dict(file), network.state_dict()
    except UserError:
        return
    wrong = mismatched_tensors(given, expected)
    names = wrong.pop("of another shape")
    shapes = [(given[name].shape, expected[name].shape) for name in names]
    if names and not any(wrong.values()) and all(own[0] == classes for _, own in shapes):
        found, own = shapes[0]
        if all(there[1:] == here[1:] for there, here in shapes):
            raise UserError(
                f"The classifier of {file} has other classes than the data set ({names[0]}: got "
                f"{tuple(found)}, expected {tuple(own)}).",
                fix=f"set init_from to weights of a network with {classes} classes, or init_from=null",
            )
