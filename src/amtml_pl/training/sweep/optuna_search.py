"""Search by Optuna whose trials are runs; its study is beside the leaderboard."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from amtml_pl.config.build import build_object
from amtml_pl.errors import UserError
from amtml_pl.system.console import console
from amtml_pl.system.optional_packages import imported
from amtml_pl.training.sweep.jobs import sweep_context

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

# Keys that select the images of val/acc.
VALIDATION_IMAGES = ("data.val_size", "data.seed", "data.classes", "dataset")


class Search:
    """Trials until enough have completed, counted over all repetitions of the command.

    A repeated command runs killed trials again under their numbers, and failed ones once.

    Args:
        overrides: parsed by Hydra; those with a choice, a range or an interval are searched.
        launch: a Hydra launcher's function of the jobs' overrides and the first job's number.
        n_trials: completed trials to reach.
        at_once: trials that the launcher gets together.
        seed: of the search.
        startup_trials: random trials before the search learns.
    """

    def __init__(
        self,
        overrides: Sequence[Any],
        launch: Callable[[Sequence[Sequence[str]], int], Sequence[Any]],
        *,
        n_trials: int,
        at_once: int,
        seed: int,
        startup_trials: int,
    ) -> None:
        self.fixed = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
        self.space = {o.get_key_element(): distribution(o) for o in overrides if o.is_sweep_override()}
        if not self.space:
            raise UserError(
                "The search has no key with several values (expected one or more).",
                fix="pass 'temperature=choice(2,4,8)', or set hydra.sweeper.params",
            )
        if other_images := [key for key in VALIDATION_IMAGES if key in self.space]:
            raise UserError(
                f"A search cannot choose {' and '.join(other_images)}, which selects the validation images: "
                "val/acc on other images does not compare its trials.",
                fix=f"set {other_images[0]} to one value, or sweep over a grid: -m {other_images[0]}=A,B",
            )
        self.launch_jobs, self.n_trials, self.at_once = launch, n_trials, at_once
        self.study = open_study(seed, startup_trials, several_at_once=at_once > 1)

    def run(self) -> None:
        """Run the missing trials."""
        again = repeated(self.study)
        failed = 0
        while (missing := self.n_trials - self.completed() - failed) > 0:
            size = min(self.at_once, missing)
            batch, again = again[:size], again[size:]
            new = [self.study.ask(self.space).number for _ in range(size - len(batch))]
            batch += [self.study.get_trials(deepcopy=False)[number] for number in new]
            failed += self.launch(batch)
        console.print(f"{self.completed()} of {self.n_trials} trials have completed.")

    def completed(self) -> int:
        """Return the number of completed trials."""
        import optuna

        return len(self.study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE]))

    def launch(self, trials: Sequence[FrozenTrial]) -> int:
        """Run trials, report them to the study, and return how many have failed."""
        import optuna

        jobs = [[*self.fixed, *(f"{k}={v}" for k, v in trial.params.items())] for trial in trials]
        failed = 0
        for trial, returned in zip(trials, self.launch_jobs(jobs, trials[0].number), strict=True):
            value = float(returned.return_value)
            if math.isnan(value):
                failed += 1
                self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
            else:
                self.study.tell(trial.number, value, skip_if_finished=True)
        return failed


def refuse_last_epochs(config: DictConfig) -> None:
    """Raise a UserError for a search over runs without a validation split.

    Args:
        config: of the command, without the searched keys.
    """
    if OmegaConf.select(config, "data.val_size", throw_on_resolution_failure=False) == 0:
        from amtml_pl.training.validation import needs_validation  # only here: it imports torch

        if "val" not in build_object(config.dataset.source).splits:
            grid = "a sweep over a grid: -m KEY=A,B"
            raise needs_validation("A search (sweep=tune) compares its trials", grid)


def open_study(seed: int, startup_trials: int, *, several_at_once: bool) -> optuna.Study:
    """Open ``study.db`` in the sweep's folder."""
    imported("optuna", extra="optuna")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if sweep_context.sweep is None:
        raise RuntimeError("The key hydra.callbacks.sweep is missing, so that the sweep has no folder.")
    folder = sweep_context.sweep.path
    folder.mkdir(parents=True, exist_ok=True)
    study: optuna.Study = optuna.create_study(
        study_name="sweep", storage=f"sqlite:///{folder}/study.db", direction="maximize", load_if_exists=True
    )
    # From the same seed, a repeated command would draw the same trials again.
    study.sampler = optuna.samplers.TPESampler(
        seed=seed + len(study.get_trials(deepcopy=False)),
        n_startup_trials=startup_trials,
        constant_liar=several_at_once,
    )
    return study


def repeated(study: optuna.Study) -> list[FrozenTrial]:
    """Return killed trials, and queue those again that failed last time."""
    import optuna

    trials = study.get_trials(deepcopy=False)
    last = {tuple(sorted(trial.params.items())): trial for trial in trials}
    for trial in last.values():
        if trial.state == optuna.trial.TrialState.FAIL:
            study.enqueue_trial(trial.params)
    return [trial for trial in trials if trial.state == optuna.trial.TrialState.RUNNING]


def distribution(override: Any) -> BaseDistribution:
    """Return the distribution of a value; raise a UserError for empty bounds."""
    distributions: Any = imported("optuna", extra="optuna").distributions
    value: Any = override.value()
    try:
        if override.is_range_sweep():
            values = sorted(override.sweep_iterator())  # Hydra leaves out the end of a range
            how = {"step": abs(value.step)}
        elif override.is_interval_sweep():
            values, how = [value.start, value.end], {"log": "log" in value.tags}
        else:
            choices: BaseDistribution = distributions.CategoricalDistribution(
                [*override.sweep_string_iterator()]
            )
            return choices
        whole = all(isinstance(value, int) for value in values)
        kind = distributions.IntDistribution if whole else distributions.FloatDistribution
        numbers: BaseDistribution = kind(values[0], values[-1], **how)
    except (TypeError, ValueError, IndexError) as error:
        what = f"The override {override.input_line!r} cannot be searched: {error}."
        raise UserError(what, fix="use interval(LOW,HIGH) or range(LOW,HIGH) with LOW below HIGH") from error
    return numbers
