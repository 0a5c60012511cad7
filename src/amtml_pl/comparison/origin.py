"""Name the commits and the command of a group's runs."""

from __future__ import annotations

import shlex

from amtml_pl.comparison.groups import Group
from amtml_pl.config.overrides import key_of

COMMITS_LISTED = 2


def commits(group: Group) -> str:
    """Return the commits of the code, ``+`` for changes; count many."""
    states = [run.record.git for run in group.runs]
    found = {f"{git.commit[:7]}{'+' if git.changed else ''}" if git else "unknown" for git in states}
    return ", ".join(sorted(found)) if len(found) <= COMMITS_LISTED else f"{len(found)} commits"


def command(group: Group) -> str:
    """Return one command that trains the runs of all seeds."""
    words = shlex.split(group.first.record.command)
    options = ["-m"] if len(group.runs) > 1 else []
    kept = [word for word in words[3:] if word not in ("-m", "--multirun") and key_of(word) != "seed"]
    seeds = ",".join(str(run.record.seed) for run in group.runs)
    return shlex.join([*words[:3], *options, *kept, f"seed={seeds}"])
