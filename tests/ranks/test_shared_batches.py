"""Runs of one, two and four processes (gloo) train on the same samples, and are the same run."""

import signal
from pathlib import Path

import pytest
import torch

from amtml_pl.system.launch import launch_ranks, run_detached
from tiny_runs import TINY

pytestmark = pytest.mark.numbers

MEMBER = str(Path(__file__).with_name("member.py"))
# Each method uses the whole batch differently: pairs and triplets of samples, random teachers, one
# program per batch, samples kept from batch to batch, rewards standardised in the batch,
# networks that are stepped in turn, correlations over the samples, layers of a term with batch norm.
# The regressors of srrl, wkd_f, camkd and fitnet_mkd are those of aekd_f.
METHODS = (
    "amtml_adapter", "rkd", "okd", "balanced", "aekd_f", "mmkd", "mtkd_rl", "dml", "dml_published", "dist",
    "ofa",
)  # fmt: skip
RUNS = {1: METHODS, 2: METHODS, 4: ("amtml_adapter",)}
CASES = [(method, size) for size in (2, 4) for method in RUNS[size]]
STEPS = 8  # 2 epochs of 125 images in batches of 32: the last one, of 29, is shared unequally


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the notes of all processes by method and number of processes, in the order of ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    paths = [f"paths.{name}={folder / name}" for name in ("data", "teachers", "outputs")]
    size = ("data.train_size=125", "dataset.source.test_fraction=0.05", "optimizer.lr=0.001", "doctor=false")
    found = {}
    for processes, methods in RUNS.items():
        place = folder / str(processes)
        place.mkdir()
        words = [*TINY, *size, *paths, f"trainer.devices={processes}"]
        command = [MEMBER, str(place), ",".join(methods), "--exact", *words]
        if processes == 1:
            run_detached(command)
        else:
            before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
            launch_ranks(command, processes)
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        for method in methods:
            files = [place / f"{method}-{rank}.pt" for rank in range(processes)]
            found[method, processes] = [torch.load(file) for file in files]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("method", "processes"), CASES)
class TestARunOfSeveralProcesses:
    @pytest.fixture
    def alone(self, runs, method):
        return runs[method, 1][0]

    @pytest.fixture
    def members(self, runs, method, processes):
        return runs[method, processes]

    def test_meets_the_samples_and_views_of_a_run_of_one_in_the_same_order(self, alone, members, processes):
        assert len(alone["seen"]) == STEPS
        for step, (view, index) in enumerate(alone["seen"]):
            shared = [None] * len(index)
            for rank, member in enumerate(members):
                assert member["seen"][step][0] == view
                shared[rank::processes] = member["seen"][step][1]
            assert shared == index

    def test_has_its_losses_at_every_step_and_is_evaluated_on_every_sample_once(self, alone, members):
        for member in members:
            assert len(member["losses"]) == STEPS
            for expected, found in zip(alone["losses"], member["losses"], strict=True):
                assert found == pytest.approx(expected, abs=1e-6)
            assert member["metrics"] == pytest.approx(alone["metrics"], abs=1e-6)

    def test_ends_with_its_parameters_the_same_bits_in_every_process(self, alone, members):
        assert any(name.startswith("student.") for name in alone["state"])
        first, *others = members
        for name, expected in alone["state"].items():
            torch.testing.assert_close(first["state"][name], expected, atol=1e-6, rtol=0, msg=name)
            assert all(torch.equal(other["state"][name], first["state"][name]) for other in others), name
