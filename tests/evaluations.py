"""Files ``evaluate.json`` as `amtml_pl.evaluate` writes them."""

import json


def evaluation(seed, values, *, student=0.75, absent=(), reads_labels=False, digest="d" * 64, adaptivity=None,
               **changes):  # fmt: skip
    """Return the fields of an evaluation; the likelihood of a mixture is 1 minus its accuracy."""
    mixtures = {
        name: {"acc": acc, "nll": None if name == "any_right" else 1 - acc, "mean_weight": {},
               "reads_labels": reads_labels and name == "own"}
        for name, acc in values.items()
    }  # fmt: skip
    ensemble = {
        "weights": "own", "weighting": "x", "because": "", "mixture": "probabilities", "temperature": 4.0,
        "mean_weight": {}, "mixtures": mixtures, "absent": dict(absent), "adaptivity": adaptivity,
    }  # fmt: skip
    return {
        "format": 4, "experiment": "x", "seed": seed, "checkpoint": "best", "weights_digest": "w",
        "split": "test", "dataset": {"name": "digits", "digest": digest, "images": 100, "own": True},
        "device": "cpu", "metrics": {"test/acc": student, "test/nll": 0.5}, "ensemble": ensemble,
        "classes": {}, "left_out": {"latency": "latency=false"}, "latency": None,
        "size": {"parameters": 1, "macs": 1, "bytes": 1}, **changes,
    }  # fmt: skip


def spread(mean, half=0.1):
    """Return the spread of a weight whose median is its mean."""
    return {"mean": mean, "p10": max(0.0, mean - half), "p50": mean, "p90": min(1.0, mean + half)}


def adaptivity(weights, **changes):
    """Return the fields of two teachers' adaptivity, from the first one's mean weight by class."""
    mean = sum(weights.values()) / len(weights)
    return {
        "entropy": 0.5, "deviation": 0.2, "between_classes": 0.25, "disputed": 0.3,
        "right": 0.7, "right_constant": 0.6, "teachers": {"a": spread(mean), "b": spread(1 - mean)},
        "classes": {name: {"a": spread(w), "b": spread(1 - w)} for name, w in weights.items()}, **changes,
    }  # fmt: skip


def write_evaluation(folder, fields):
    (folder / "evaluate.json").write_text(json.dumps(fields))
