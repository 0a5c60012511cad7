"""A compiled step computes what the eager one does, and never compiles anew."""

import logging
import os
import subprocess
import sys

import pytest
import torch
from test_distill import batches, distiller

from amtml_pl.distill.compiled import CompiledStep
from amtml_pl.distill.timing import Spending
from amtml_pl.errors import UserError
from amtml_pl.losses.kd import SoftTargetLoss
from amtml_pl.losses.term import LossTerm
from amtml_pl.weighting.random_teacher import RandomTeacherWeighting
from amtml_pl.weighting.uniform import UniformWeighting
from rounding import assert_rounded_alike
from steps import small_module

WITHOUT_SHAPE_CHECKS = pytest.mark.skipif("SHAPE_CHECKS" not in os.environ, reason="run by the first test")


@pytest.mark.slow
@pytest.mark.skipif("SHAPE_CHECKS" in os.environ, reason="is this process")
def test_this_file_passes_in_a_process_without_shape_checks_which_do_not_compile():
    command = [sys.executable, "-m", "pytest", "-q", __file__]
    done = subprocess.run(command, env={**os.environ, "SHAPE_CHECKS": "off"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.fixture(autouse=True)
def fresh_compiler():
    """Forget what earlier tests compiled."""
    torch.compiler.reset()


def compiled(module, rows=8, parts=("step", "student"), required=False, backend="aot_eager"):
    module.compiled = CompiledStep(rows, parts, required=required, backend=backend)
    return module


def loss_and_gradients(module, batch):
    module.train()
    loss = module.training_step(batch, 0)
    loss.backward()
    return loss, {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def numbers_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@WITHOUT_SHAPE_CHECKS
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_loss_gradients_and_running_statistics_are_those_of_the_eager_step(backend):
    (eager, _), (module, _) = distiller(), distiller()
    compiled(module, backend=backend)
    for batch in batches(2):
        expected, gradients = loss_and_gradients(eager, batch)
        loss, found = loss_and_gradients(module, batch)
        assert_rounded_alike(loss, expected, 9 * 64, 12)
        assert list(found) == list(gradients)
        for name, gradient in gradients.items():
            assert_rounded_alike(found[name], gradient, 8 * 32 * 32, 24)
    assert module.compiled.part == "step"
    for name, tensor in numbers_of(eager).items():  # each image counts once: compiling has trained nothing
        assert_rounded_alike(numbers_of(module)[name].float(), tensor.float(), 9 * 64, 24)


@WITHOUT_SHAPE_CHECKS
def test_only_full_batches_run_compiled_and_no_other_size_or_epoch_compiles_anew():
    module = compiled(distiller()[0])
    calls = []
    whole, short = batches(1)[0], batches(1, size=5)[0]
    module.training_step(short, 0)
    assert module.compiled.part is None  # the first full batch compiles
    module.training_step(whole, 0)
    kernel = module.compiled.compiled
    module.compiled.compiled = lambda *inputs: calls.append(len(inputs[0])) or kernel(*inputs)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for batch in (whole, short, whole):
        module.training_step(batch, 0)
    module.coef["kd"] = 7.0  # as a callback may do
    module.training_step(whole, 0)
    assert calls == [8, 8, 8]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


class OfThisEpoch(LossTerm):
    """A term that changes with the epoch."""

    def forward(self, step):
        return step.student.logits.square().mean() * (step.epoch + 1)


class Unfit(LossTerm):
    """A term whose value decides what is computed."""

    def forward(self, step):
        total = step.student.logits.sum()
        return total if total > 0 else -total


@WITHOUT_SHAPE_CHECKS
@pytest.mark.parametrize("term", [OfThisEpoch, Unfit])
def test_a_term_that_does_not_compile_leaves_the_student_compiled(term):
    module, eager = (
        small_module({"kd": SoftTargetLoss(4.0), "own": term()}, UniformWeighting(), teachers=["t0"])
        for _ in range(2)
    )
    compiled(module)
    [batch] = batches(1)
    assert_rounded_alike(
        loss_and_gradients(module, batch)[0], loss_and_gradients(eager, batch)[0], 9 * 64, 12
    )
    assert module.compiled.part == "student"


def broken(monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("the compiler crashed")

    monkeypatch.setattr(torch, "compile", refuse)


@WITHOUT_SHAPE_CHECKS
def test_a_student_that_does_not_compile_trains_eagerly_with_one_line(monkeypatch, caplog):
    broken(monkeypatch)
    module = compiled(distiller()[0])
    with caplog.at_level(logging.WARNING):
        for batch in batches(2):
            module.training_step(batch, 0)
    [line] = [record.getMessage() for record in caplog.records]
    assert "cannot be compiled: the compiler crashed" in line


@WITHOUT_SHAPE_CHECKS
def test_a_student_that_does_not_compile_although_it_must_is_an_error(monkeypatch):
    broken(monkeypatch)
    module = compiled(distiller()[0], required=True)
    with pytest.raises(UserError, match="cannot be compiled"):
        module.training_step(batches(1)[0], 0)


@WITHOUT_SHAPE_CHECKS
def test_runs_of_one_process_do_not_share_what_they_have_compiled():
    first, second = (compiled(distiller()[0], rows=rows) for rows in (5, 8))
    short, whole = batches(1, size=5)[0], batches(1)[0]
    first.training_step(short, 0)
    with torch._dynamo.config.patch(recompile_limit=2):
        for temperature in range(2, 6):  # more different steps than dynamo keeps for one function
            other = small_module({"kd": SoftTargetLoss(temperature)}, UniformWeighting(), teachers=["t0"])
            compiled(other).training_step(whole, 0)
            assert other.compiled.part == "step"
    second.training_step(whole, 0)
    assert (first.compiled.part, second.compiled.part) == ("step", "step")
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    second.training_step(short, 0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


@WITHOUT_SHAPE_CHECKS
def test_random_teachers_are_the_same_in_a_compiled_run():
    def weights_of(module):
        seen = []
        module.update_metrics = lambda step, *others: seen.append(step.weights)
        for batch in batches(4):
            module.training_step(batch, 0)
        return torch.stack(seen)

    eager, module = (distiller({"kd": SoftTargetLoss(4.0)}, RandomTeacherWeighting())[0] for _ in range(2))
    assert torch.equal(weights_of(compiled(module)), weights_of(eager))
    assert module.compiled.part == "student"


def test_the_time_to_compile_is_no_part_of_the_fit():
    spent = Spending()
    before = spent.fit_seconds
    spent.count_compilation(1000.0)
    assert spent.fit_seconds < before - 900
    assert spent.state()["compile_seconds"] == 1000.0
