"""Train, then evaluate, as a user types it: the numbers of the run, wherever its folder lies."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import amtml_pl

pytestmark = pytest.mark.slow
SOURCE = str(Path(amtml_pl.__file__).parents[1])


def typed(module, *words, cwd):
    """What a command has said that ends with status 0, in a directory of its own choice."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AMTML_")}
    command = [sys.executable, "-m", f"amtml_pl.{module}", *map(str, words)]
    done = subprocess.run(
        command, cwd=cwd, env={**environment, "PYTHONPATH": SOURCE}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.numbers
def test_evaluating_digits_gives_the_numbers_of_the_run_and_so_it_does_after_a_move_without_the_teachers(
    tmp_path,
):
    at_home, away = tmp_path / "home", tmp_path / "away"
    at_home.mkdir()
    away.mkdir()
    trained = at_home / "run"
    typed("train", "experiment=digits_amtml", "trainer=cpu", f"hydra.run.dir={trained}", cwd=at_home)
    run = json.loads((trained / "run.json").read_text())["metrics"]
    said = typed("evaluate", "run=run", cwd=at_home)
    found = json.loads((trained / "evaluate.json").read_text())
    assert found["metrics"]["test/acc"] == run["test/acc"]
    assert run["test/acc"] >= 0.95  # what the demo promises
    assert f"{run['test/acc']:.4f}" in said
    assert found["ensemble"]["weights"] == "own"
    teachers = [name for name in run if name.startswith("teacher/") and name.endswith("test/acc")]
    assert len(teachers) == 3
    assert [found["metrics"][name] for name in teachers] == pytest.approx([run[name] for name in teachers])

    moved = Path(shutil.move(trained, away / "elsewhere"))
    shutil.rmtree(at_home)
    typed(
        "evaluate", f"run={moved.name}", f"paths.data={away}/data", "dataset=digits", cwd=away
    )  # packs them
    (moved / "evaluate.json").write_text(json.dumps(found))
    for split, checkpoint, ending in (("test", "last", "_last"), ("val", "best", "")):
        file = away / f"{split}{ending}.json"
        words = (f"run={moved.name}", f"split={split}", f"checkpoint={checkpoint}", f"out={file}")
        typed("evaluate", *words, f"paths.data={away}/data", cwd=away)
        again = json.loads(file.read_text())
        assert again["metrics"][f"{split}/acc"] == run[f"{split}/acc{ending}"]
        assert len(again["left_out"]) == 4  # three teachers, and so their ensemble
    assert json.loads((moved / "evaluate.json").read_text()) == found
