"""Contents of a run folder, without times, which differ between two runs."""

import json
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Lightning's own counters differ after a resume; no number of a run depends on these.
COUNTERS = "loops"
# Seconds, and the passes that the killed session made for the cache: costs, not results.
COSTS = ("timing", "spent", "teacher_passes")


def contents(folder: Path) -> dict[str, object]:
    """Return the comparable content of each file, by its name in the folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    events = [file for file in files if "tfevents" in file.name]
    found = {str(file.relative_to(folder)): content(file) for file in files if file not in events}
    if events:
        found.update({f"event file: {tag}": points for tag, points in points_by_tag(folder).items()})
    return found


def content(file: Path) -> object:
    if file.suffix == ".ckpt":
        return plain({k: v for k, v in torch.load(file, weights_only=True).items() if k != COUNTERS})
    if file.name == "run.json":
        record = json.loads(file.read_text())
        del record["digest"]  # of fields and, in the checkpoints, of seconds
        for name in [name for name in record.get("files", {}) if name.endswith(".ckpt")]:
            del record["files"][name]
        return plain(record)
    return file.read_bytes()


def plain(value: object) -> object:
    """Return nested containers whose leaves can be compared by ==."""
    if isinstance(value, dict):
        # Of a checkpoint in another folder, its name: a path is a key of Lightning's best_k_models.
        return {Path(str(key)).name: plain(inner) for key, inner in value.items() if key not in COSTS}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).numpy().tobytes()
    return repr(value)  # also of nan, which equals nothing


def points_by_tag(folder: Path) -> dict[str, list[tuple[int, object]]]:
    everything = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}
    found = EventAccumulator(str(folder), size_guidance=everything)
    found.Reload()
    read = {
        "scalars": lambda tag: [(e.step, e.value) for e in found.Scalars(tag)],
        "images": lambda tag: [(e.step, e.encoded_image_string) for e in found.Images(tag)],
        "histograms": lambda tag: [(e.step, repr(e.histogram_value)) for e in found.Histograms(tag)],
        "tensors": lambda tag: [(e.step, e.tensor_proto.SerializeToString()) for e in found.Tensors(tag)],
    }
    return {f"{kind} {tag}": read_one(tag) for kind, read_one in read.items() for tag in found.Tags()[kind]}


def different(one: object, other: object, place: str = "") -> list[str]:
    """Return the places where two folders differ, down to the fields of files."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted(one.keys() | other.keys())
        return [each for n in names for each in different(one.get(n), other.get(n), f"{place}/{n}")]
    return [] if one == other else [place]
