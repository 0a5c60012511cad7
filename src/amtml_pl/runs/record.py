"""The schema of ``run.json``: settings, code, data and results of a run."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from amtml_pl.system.records import Command, Count, Positive, Record, Sealed

Status: TypeAlias = Literal["completed", "failed", "interrupted"]
# The metrics of a completed run on each split, and files with a digest in its record.
METRICS = ("acc", "acc_last")
FILES = ("config.yaml", "metrics.csv")


class GitState(Record):
    """The checkout that the package was run from, and whether it had changes."""

    commit: str
    changed: bool


class DatasetFacts(Record):
    """The packed data set of a run: images per split, and classes in label order."""

    name: str
    digest: str
    sizes: dict[str, Count]
    classes: tuple[str, ...]


class NetworkFacts(Record):
    """The constructor of a network, its size, and its multiply-accumulates per image."""

    network: str | None
    parameters: Count
    macs: Count


class TeacherFacts(NetworkFacts):
    """A teacher, and its accuracy by split as known when its outputs were cached.

    Attributes:
        has_logits: False for a teacher that gives hints alone, which has no accuracy.
    """

    weights_digest: str
    has_logits: bool = True
    accuracy: dict[str, float] = Field(default_factory=dict)


class OriginFacts(Record):
    """The completed run that a run extends: its folder, study and number of epochs."""

    folder: str
    study: str
    epochs: Positive


class CacheUse(Record):
    """The cached teacher outputs of a run.

    Attributes:
        views: number of versions of the training images.
        bytes: of the shards that hold them.
        stores: their folders, relative to the root of the data set's cache.
        teacher_passes: passes over the training split that each teacher has made for this run.
    """

    views: Count
    bytes: Count
    stores: tuple[str, ...]
    teacher_passes: dict[str, float]


class Timing(Record):
    """The times of a run in seconds, and the images per second of the fit."""

    fit_seconds: float
    images_per_second: float
    teacher_seconds: float
    cache_build_seconds: float
    compile_seconds: float


class Execution(Record):
    """How the student's step is computed; a resumed run keeps it.

    Attributes:
        channels_last: the memory layout of the network.
        compile: True if full batches run compiled.
        fused: True if the optimiser updates all parameters by one kernel.
    """

    channels_last: bool
    compile: bool
    fused: bool

    def __str__(self) -> str:
        """Return the execution for the plan, such as ``channels last, compiled``."""
        chosen = {"channels last": self.channels_last, "compiled": self.compile, "fused": self.fused}
        return ", ".join(name for name, on in chosen.items() if on) or "eager"


class RunRecord(Sealed):
    """The content of ``run.json``.

    Attributes:
        experiment: None if the command chose none.
        study: a hash of everything but the seed.
        command: the command line that repeats the run.
        git: None if the package was outside a checkout.
        processes: number that trained the student.
        threads: of torch; on a CPU, results repeat exactly with the same number.
        teachers: by name, in the order of their outputs.
        teacher_source: None without teachers.
        loop: the constructor of the training module.
        weighting: the constructor of the weighting; None without teachers.
        loss: the coefficient of each term.
        temperature: of the distillation.
        budget: training settings and initial weights; equal for all methods of a fair study. Its
            ``epochs`` are those trained, fewer after early stopping. Its ``selection`` is ``best`` for the
            epoch of best validation accuracy, or ``last``.
        debug: the preset of a run that is not a result; None for a real one.
        origin: the run that this one extends; None for any other.
        compiled: the part that was compiled; "" if none was, or not yet.
        metrics: of a completed run, by flat name; accuracies are in [0, 1].
        files: the SHA-256 of each file that a completed run is made of, by its name in the folder.
        error: the reason of a failure.
    """

    format: Literal[6] = 6
    status: Status
    experiment: str | None
    seed: int
    study: str
    command: Command
    git: GitState | None
    versions: dict[str, str]
    processes: Positive
    threads: Positive
    dataset: DatasetFacts
    student: NetworkFacts
    teachers: dict[str, TeacherFacts]
    teacher_source: Literal["cached", "live"] | None
    loop: str | None
    weighting: str | None
    loss: dict[str, float]
    temperature: float
    budget: dict[str, bool | int | float | str | None]
    execution: Execution
    debug: str | None = None
    origin: OriginFacts | None = None
    compiled: Literal["step", "student", ""] = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    timing: Timing | None = None
    cache: CacheUse | None = None
    files: dict[str, str] = Field(default_factory=dict)
    error: str = ""

    @model_validator(mode="after")
    def has_results(self) -> RunRecord:
        """Check that a completed run has all its metrics, files and timing."""
        if self.status == "completed":
            splits = ("test",) if self.selection == "last" else ("val", "test")
            of_teachers = (f"teacher/{name}" for name, facts in self.teachers.items() if facts.has_logits)
            expected = [f"{split}/{metric}" for split in splits for metric in METRICS]
            expected += [f"{teacher}/{split}/acc" for teacher in of_teachers for split in splits]
            absent = [f"metrics.{name}" for name in expected if name not in self.metrics]
            absent += [f"files.{name}" for name in FILES if name not in self.files]
            absent += ["timing"] if self.timing is None else []
            if absent:
                raise ValueError(f"the record lacks {', '.join(absent)}")
        return self

    @property
    def selection(self) -> str:
        """Return which epoch counts: ``best`` on validation, or ``last`` without a validation split."""
        return str(self.budget.get("selection"))

    def timed(self) -> Timing:
        """Return the timing of a completed run, which always has one."""
        if self.timing is None:
            raise ValueError("The run has no timing, because it has not completed.")
        return self.timing
