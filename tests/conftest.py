"""Checks every tensor shape and argument type of the package at run time."""

import copy
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import torch
from jaxtyping import install_import_hook

gc.disable()  # until the tests are collected: imports leave many objects to search, and little garbage
# Before the hook: what is first imported under it is compiled anew each time.
import pytorch_lightning  # noqa: E402, F401

for place in [name for name in os.environ if name.startswith("AMTML_")]:  # the developer's own data and cache
    del os.environ[place]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start, as for this one below
if os.environ.get("SHAPE_CHECKS") != "off":  # see tests/distill/test_compiled.py
    checked = install_import_hook("amtml_pl", "typing_check.checked")
    checked.__enter__()  # for the whole session: the package is imported by the test modules

# The same examples in every run, on any machine; no time limit, as machines are shared.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)  # fmt: skip
hypothesis.settings.load_profile("repeatable")

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.fixture
def golden():
    """Return a function that gives the inputs and outputs of a golden case as tensors."""

    def case(name: str) -> tuple[dict, dict]:
        found = GOLDEN["cases"][name]
        return {k: tensor(v) for k, v in found["inputs"].items()}, {
            k: tensor(v) for k, v in found["outputs"].items()
        }

    return case


def tensor(value):
    if not isinstance(value, list):
        return value
    try:
        made = torch.tensor(value, dtype=torch.float64)
    except ValueError:  # rows of different lengths
        return [tensor(row) for row in value]
    return made.long() if is_whole(value) else made


def is_whole(value) -> bool:
    return all(is_whole(v) for v in value) if isinstance(value, list) else isinstance(value, int)


NUMBERS = ("losses", "weighting")  # folders whose tests all compare numbers
# Longest first, so that several workers end together.
LONGEST = (
    "test_process_groups.py", "test_tutorial.py", "test_protocols.py", "test_sweep.py",
    "test_shared_batches.py", "test_killed_runs.py", "test_extension.py", "test_notebook.py",
    "test_methods.py", "test_pairs.py", "test_pipeline.py", "test_documentation.py", "test_debug.py",
    "test_train.py", "test_limits.py", "test_compiled.py", "test_listed_constructors.py",
    "test_own_images.py", "test_info.py", "test_extending.py", "test_mistakes.py", "test_checks.py",
    "test_connect.py", "test_export.py",
)  # fmt: skip


def pytest_configure(config):
    """Hide CUDA devices from all tests but those of ``-m gpu``, before any test asks for a device."""
    if config.option.markexpr != "gpu":
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def pytest_ignore_collect(collection_path, config):
    """Skip files without tests of numbers where only those run: importing them all takes as long."""
    if collection_path.suffix == ".py" and config.option.markexpr.startswith("numbers"):
        every = collection_path.parent.name in NUMBERS
        return None if every or "mark.numbers" in collection_path.read_text() else True
    return None


def pytest_collection_finish():
    """Search for garbage again, but not among what the imports have left."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    """Put the longest files first, the others by name; mark the tests of losses, weightings and GPUs."""
    if gone := {*LONGEST} - {file.name for file in Path(__file__).parent.rglob("test_*.py")}:
        raise pytest.UsageError(f"LONGEST in tests/conftest.py names files that do not exist: {sorted(gone)}")
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))
    for item in items:
        if item.path.parent.name in NUMBERS:
            item.add_marker("numbers")
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device (make gpu runs these tests)"))


# A background job of a shell ignores SIGINT, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # small tensors, and a machine that others use too


@pytest.fixture(autouse=True)
def process_as_before():
    """Restore what a command leaves behind, as it ends with its process.

    A forked worker that inherits its signal handlers may not end. A later test that composes a configuration
    would read its choices.
    """
    from hydra.core.hydra_config import HydraConfig

    from amtml_pl.system.signals import restoring_handlers

    with restoring_handlers(signal.SIGINT, signal.SIGTERM):
        yield
    HydraConfig.instance().cfg = None


@pytest.fixture(autouse=True)
def tracing_without_type_checks(monkeypatch):
    """Switch shape checks off while a network is traced with stand-ins for tensors."""
    import jaxtyping

    from amtml_pl.models.classifier_head import TapTracer

    trace = TapTracer.trace

    def unchecked(*arguments):
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            return trace(*arguments)
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)

    monkeypatch.setattr(TapTracer, "trace", unchecked)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Return a folder that tests share: packed digits, and teachers that are trained once."""
    return tmp_path_factory.mktemp("shared")


COMPOSED, HYDRA = {}, []


@pytest.fixture
def configure(tmp_path, shared):
    """Return a function that composes overrides, once each, with outputs below ``tmp_path``.

    Hydra stays initialised for the test, as a run composes its teachers' recipes.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from amtml_pl.config.paths import config_directory

    if not HYDRA:
        initialize_config_dir(str(config_directory()), version_base="1.3")
        HYDRA.append(GlobalHydra.instance().hydra)
    GlobalHydra.instance().hydra = HYDRA[0]
    places = {"data": shared / "data", "teachers": shared / "teachers", "outputs": tmp_path / "outputs"}

    def made(*overrides: str):
        if overrides not in COMPOSED:
            COMPOSED[overrides] = compose("train", overrides=[*overrides])
        config = copy.deepcopy(COMPOSED[overrides])
        for name, folder in places.items():
            if not any(word.startswith(f"paths.{name}=") for word in overrides):
                config.paths[name] = str(folder)
        return config

    yield made
    GlobalHydra.instance().clear()


@pytest.fixture
def run(configure, tmp_path):
    """Return a function that trains a run; the same name resumes it."""
    from amtml_pl.runs.folder import RunFolder
    from tiny_runs import trained

    def go(*overrides: str, name: str = "run"):
        folder = RunFolder(tmp_path / name)
        experiment = overrides[0].removeprefix("experiment=")
        return trained(configure(*overrides), folder, experiment=experiment), folder

    return go


def trained_once(folder, configure, *overrides):
    """Train a run into a folder, unless a test has done it."""
    from amtml_pl.runs.folder import RunFolder
    from tiny_runs import trained

    if not folder.exists():
        config = configure(*overrides, f"paths.outputs={folder.parent}/outputs")
        experiment = overrides[0].removeprefix("experiment=")
        repeat = "python -m amtml_pl.train experiment=x"
        trained(config, RunFolder(folder), experiment=experiment, command=repeat)
    return folder


@pytest.fixture
def moved(configure, shared, tmp_path):
    """Return a copy of the folder of a completed run with two teachers."""
    from tiny_runs import TINY

    finished = trained_once(shared / "finished", configure, "experiment=digits_amtml", *TINY)
    return shutil.copytree(finished, tmp_path / "moved")


@pytest.fixture
def own_teachers(moved, shared, tmp_path):
    """The override that names a copy of the trained teachers of the run in `moved`."""
    return f"paths.teachers={shutil.copytree(shared / 'teachers', tmp_path / 'teachers')}"


@pytest.fixture(scope="session")
def common(tmp_path_factory):
    """Return a folder that all workers of the session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture
def short_measurements(monkeypatch):
    """Measure latencies for a fiftieth of the usual time."""
    from amtml_pl.results.evaluation import latency

    monkeypatch.setattr(latency, "SECONDS_PER_REPETITION", 0.001)


@pytest.fixture
def exported(moved, common, short_measurements):
    """Return the same as `moved`, its student exported to every format."""
    from filelock import FileLock

    from amtml_pl.results.export.export import export_student
    from amtml_pl.results.export.formats import FORMATS
    from amtml_pl.results.run import load_run

    kept = common / "exported"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            for name in FORMATS:
                export_student(load_run(moved), "best", name, command="the command")
            shutil.copytree(moved / "export", kept)
            return moved
    shutil.copytree(kept, moved / "export")
    return moved


@pytest.fixture
def command(monkeypatch, capfd):
    """Return a function that runs a command in this process, and returns what it prints."""
    from hydra.core.global_hydra import GlobalHydra

    def made(main, *words, status=0):
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [main.__module__.rpartition(".")[2], *map(str, words)])
        capfd.readouterr()
        if status:
            with pytest.raises(SystemExit) as stop:
                main()
            assert stop.value.code == status
        else:
            main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert err.count("error:") == (1 if status else 0)
        return err if status else out

    return made


@pytest.fixture
def follow():
    """Return a function that runs all shell blocks of a page of docs/ in a folder."""

    def typed(page, folder):
        text = (Path(__file__).parent.parent / "docs" / page).read_text()
        blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AMTML_")}
        environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        command = ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        ended = subprocess.run(command, cwd=folder, env=environment, check=False, **pipes)
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    return typed


@pytest.fixture
def mistake(tmp_path, shared, monkeypatch, capfd):
    """Return a function that runs a wrong command in this process, and returns its message."""
    from amtml_pl.train import main

    def made(*words):
        paths = {"data": tmp_path / "data", "teachers": shared / "teachers", "outputs": tmp_path / "outputs"}
        typed = [f"paths.{name}={folder}" for name, folder in paths.items()]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train", *words, *typed])
        with pytest.raises(SystemExit) as stop:
            main()
        output = capfd.readouterr().err
        assert stop.value.code == 2
        assert "Traceback" not in output
        assert output.count("error:") == 1
        return output

    return made
