"""Whole records, as commands write them, for tests that change a part."""

import json

from amtml_pl.runs.record import RunRecord, TeacherFacts
from amtml_pl.teachers.cache.catalogue import ExaminedTeacher, TeacherExamination

STUDENT = {"network": "models.CifarResNet", "parameters": 19954, "macs": 1000}
TEACHER = {**STUDENT, "weights_digest": "w", "accuracy": {}}
EXAMINATION = TeacherExamination(
    images=10, accuracy=0.9, accuracy_reassigned=0.9, accuracy_with={"imagenet": 0.1},
    gain_in_standard_errors={"classes": 0.0, "imagenet": -1.0},
)  # fmt: skip
EXAMINED = ExaminedTeacher(**TeacherFacts(**TEACHER).model_dump(), examination=EXAMINATION)


def a_record(**changes):
    """Return the fields of a completed run's ``run.json``, without teachers."""
    return {
        "format": 6, "status": "completed", "experiment": "digits", "seed": 0, "study": "s",
        "command": "python -m amtml_pl.train experiment=digits",
        "git": None, "versions": {}, "processes": 1, "threads": 1,
        "dataset": {"name": "digits", "digest": "d" * 64, "sizes": {"train": 100}, "classes": ["cat", "dog"]},
        "student": STUDENT, "teachers": {}, "teacher_source": None,
        "loop": "amtml_pl.distill.module.DistillModule",
        "weighting": None, "loss": {"ce": 1.0}, "temperature": 4.0,
        "execution": {"channels_last": True, "compile": False, "fused": True},
        "budget": {"epochs": 8, "selection": "best", "student_initial": "s"},
        "metrics": {"val/acc": 0.9, "val/acc_last": 0.9, "test/acc": 0.8, "test/acc_last": 0.8},
        "timing": a_timing(), "cache": None, "files": {}, "error": "",
        **changes,
    }  # fmt: skip


def a_run(**changes):
    """Return `a_record` as commands read it."""
    return RunRecord.model_validate_json(json.dumps(a_record(**changes)))


def a_timing(**changes):
    seconds = {
        "fit_seconds": 60.0,
        "teacher_seconds": 0.0,
        "cache_build_seconds": 0.0,
        "compile_seconds": 0.0,
    }
    return {**seconds, "images_per_second": 100.0, **changes}
