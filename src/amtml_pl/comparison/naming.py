"""Name groups, lines of a figure and problems by their differences."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from amtml_pl.comparison.recorded_run import Run, flat_texts
from amtml_pl.config.overrides import key_of, without_common
from amtml_pl.system.plain_yaml import read_plain_yaml

LONGEST_FACT = 48  # in a name; a longer one is read in config.yaml
Words = Sequence[str]


def names_of(runs: Sequence[Run]) -> list[str]:
    """Return names from experiment, method and overrides; alike ones also by other differences.

    Args:
        runs: one of each group of a problem.
    """
    words = [identity(run) for run in runs]
    methods = {run.experiment for run in runs if run.method}
    of_teachers = common_words_of_teachers(runs)
    names = []
    for run, own in zip(runs, words, strict=True):
        kept = without_common(own, words) if len(runs) > 1 else own
        kept = [word for word in kept if word not in of_teachers]
        if run.method and len(methods) == 1:
            kept = [word for word in kept if not word.startswith("experiment=")]
        short = (w.partition("=")[2] if w.startswith(("method=", "experiment=")) else w for w in kept)
        names.append(" ".join(short) or run.method or run.experiment or "unnamed")
    return make_distinct(names, lambda alike: unlike_runs([runs[number] for number in alike]))


def common_words(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the overrides that all runs have, the experiment included."""
    words = [identity(run) for run in runs]
    return tuple(word for word in words[0] if all(word in each for each in words))


def common_words_of_teachers(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the overrides of teachers that all runs with teachers have, but not all runs."""
    words = [identity(run) for run in runs if run.record.teachers]
    common = set.intersection(*map(set, words)) if len(words) > 1 else set()
    of_all = common_words(runs)
    return tuple(
        word
        for word in (words[0] if common else ())
        if word in common
        and word not in of_all
        and key_of(word).split(".")[0] in ("teacher", "teacher_seeds")
    )


def identity(run: Run) -> list[str]:
    """Return the overrides that describe what was studied, experiment and method first."""
    first = [f"{key}={value}" for key, value in (("experiment", run.experiment), ("method", run.method))]
    return [*(word for word in first if not word.endswith("=")), *run.settings]


def make_distinct(names: Sequence[str], unlike: Callable[[Sequence[int]], Sequence[Words]]) -> list[str]:
    """Return names that are all different.

    Args:
        names: some of them equal.
        unlike: returns distinguishing words for equal names, by their positions; if these are equal too, a
            number is added.
    """
    alike: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        alike[name].append(number)
    found = list(names)
    for numbers in alike.values():
        if len(numbers) > 1:
            for number, words in zip(numbers, unlike(numbers), strict=True):
                own = [word for word in words if len(word) <= LONGEST_FACT]
                found[number] += f" ({', '.join(own[:3])})" if own else ""
    total, counted = Counter(found), Counter[str]()
    for number, name in enumerate(found):
        if total[name] > 1:
            counted[name] += 1
            found[number] = f"{name} #{counted[name]}"
    return found


def unlike_runs(runs: Sequence[Run]) -> list[list[str]]:
    """Return the differences in the records of some runs, or else in their configurations."""
    found = unlike_facts([run.facts for run in runs])
    if len({tuple(own) for own in found}) < len(runs):
        configured = unlike_facts([configuration(run.folder) for run in runs], absent="absent")
        found = [own + more for own, more in zip(found, configured, strict=True)]
    return found


def unlike_facts(facts: Sequence[Mapping[str, str]], absent: str | None = None) -> list[list[str]]:
    """Return each one's facts that not all share.

    Args:
        facts: of each, by a dotted name.
        absent: the text for a missing fact; by default a missing fact is not a difference.
    """
    names = dict.fromkeys(name for own in facts for name in own)
    unlike = [name for name in names if len({own.get(name, absent) for own in facts} - {None}) > 1]
    return [[f"{name.rpartition('.')[2]} {own[name]}" for name in unlike if name in own] for own in facts]


def configuration(folder: Path) -> dict[str, str]:
    """Return a run's configuration, flat, without its seed; empty if it cannot be read."""
    try:
        found = read_plain_yaml(folder / "config.yaml")
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in flat_texts(found) if k != "seed"} if isinstance(found, dict) else {}
