"""A benchmark reports the costs of the code that trains."""

import mmap
import sys
import time

import pytest
import torch

from amtml_pl import benchmark
from amtml_pl.data.augment import Augmentation
from amtml_pl.data.datasets.synthetic import Synthetic
from amtml_pl.data.packing import pack
from amtml_pl.errors import UserError
from amtml_pl.runs.record import Execution
from amtml_pl.system.records import read_record
from amtml_pl.training.assemble import student_network
from amtml_pl.training.benchmark.bare_loop import BareLoop, bare_loops
from amtml_pl.training.benchmark.benchmark_record import BenchmarkRecord, Statistic
from amtml_pl.training.benchmark.peak_memory import peak_private_memory, private_megabytes
from amtml_pl.training.benchmark.short_fit import ShortFit, silenced_console
from amtml_pl.training.execution import EAGER, missing_compiler

SMALL = (
    "experiment=digits_amtml", "trainer=cpu", "student=resnet8_thin", "teacher=[vgg8_quarter]",
    "data.batch_size=16",
)  # fmt: skip
STEPS = (
    "ce_step_ms", "avg_step_ms", "cached_step_ms", "live_step_ms",
    "bare_eager_step_ms", "bare_channels_last_step_ms",
)  # fmt: skip
KEYS = (*STEPS, "ratio_to_limit", "compile_seconds", "peak_extra_mb", "input_share")


@pytest.fixture
def bench(configure, tmp_path):
    """A benchmark of two repetitions, with neither data nor trained teachers."""

    def made(*overrides):
        (tmp_path / "bench").mkdir()
        nothing = (f"paths.data={tmp_path}/none", f"paths.teachers={tmp_path}/none")
        config = configure(*SMALL, *nothing, *overrides)
        return benchmark.benchmark_of(config, tmp_path / "bench", repetitions=2, steps=2, images=64)

    return made


def test_a_statistic_is_the_median_and_the_interquartile_range():
    assert Statistic.of([3.0, 1.0, 2.0, 4.0, 100.0]) == Statistic(median=3.0, spread=2.0)
    assert Statistic.of([7.0]) == Statistic(median=7.0, spread=0.0)
    assert Statistic.of([]) == Statistic(median=None, spread=None)


def test_the_four_variants_differ_in_teachers_and_losses_alone(bench):
    variants = bench().variants
    methods = {name: settings.method for name, settings in variants.items()}
    assert ([*methods["ce"].loss], [*methods["avg"].loss]) == (["ce"], ["ce", "kd"])
    assert [*methods["cached"].loss] == [*methods["live"].loss]
    assert {name: (len(settings.selected), settings.cached) for name, settings in variants.items()} == {
        "ce": (0, False), "avg": (1, True), "cached": (1, True), "live": (1, False),
    }  # fmt: skip
    assert methods["avg"].weighting.target.endswith("UniformWeighting")


def test_a_slow_step_is_seen_in_the_step_and_a_slow_reader_in_the_input(bench, tmp_path, monkeypatch):
    made = bench()
    with silenced_console():
        fit = ShortFit(made.variants["ce"], tmp_path / "fit", EAGER)
        make = Augmentation.__call__

        def slow(self, images, index, view):
            time.sleep(0.1)
            return make(self, images, index, view)

        monkeypatch.setattr(Augmentation, "__call__", slow)
        timer = fit.steps()
    assert len(timer.steps) == len(timer.inputs) == 2
    assert all(0.1 <= i <= s for i, s in zip(timer.inputs, timer.steps, strict=True))


@pytest.mark.skipif(missing_compiler("cpu") is not None, reason="needs a C++ compiler")
def test_the_few_steps_run_as_a_whole_run_of_the_experiment_would(bench, tmp_path):
    made = bench("data.train_size=160", "trainer.max_epochs=1000000000")
    assert made.execution == Execution(channels_last=True, compile=True, fused=True)
    assert made.conditions().execution == "channels last, compiled, fused"
    with silenced_console():
        module = ShortFit(made.variants["ce"], tmp_path / "fit", made.execution).ready.module
    assert module.compiled is not None
    assert module.configure_optimizers()["optimizer"].defaults["fused"]


def test_a_run_too_short_to_compile_for_is_measured_without(bench):
    assert not bench("data.train_size=160", "trainer.max_epochs=1").execution.compile


def test_a_bare_loop_trains_its_own_copy_of_the_student_and_draws_no_random_numbers_of_the_run(bench):
    settings = bench().variants["ce"]
    state = torch.get_rng_state()
    loop = BareLoop(settings, Execution(channels_last=True, compile=False, fused=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert loop.images.shape == (settings.data.batch_size, 3, 32, 32)
    assert loop.images.is_contiguous(memory_format=torch.channels_last)
    assert loop.optimizer.defaults["fused"]
    before = {name: weight.clone() for name, weight in loop.network.named_parameters()}
    student = student_network(settings, [], EAGER).network
    assert {name: w.shape for name, w in student.named_parameters()} == {
        n: w.shape for n, w in before.items()
    }
    assert len(loop.seconds(3)) == 3
    assert not any(torch.equal(weight, before[name]) for name, weight in loop.network.named_parameters())


def test_the_compiled_bare_loop_is_left_out_where_there_is_no_compiler(bench):
    from torch._inductor import config

    settings = bench().variants["ce"]
    with config.patch({"cpp.cxx": ("/no/such/compiler",)}):
        assert [*bare_loops(settings, fused=False)] == ["bare_eager", "bare_channels_last"]


def test_the_cache_is_built_anew_in_every_repetition(bench, tmp_path):
    with silenced_console():
        assert bench().build_figures()["build_images_per_second"].median > 0
    built = [file.parent for file in (tmp_path / "bench").rglob("view-0001*.safetensors")]
    assert len({folder.relative_to(tmp_path).parts[1] for folder in built}) == 3


def test_the_break_even_is_the_first_epoch_whose_savings_pay_the_views(bench):
    made = bench("data.views=2", "trainer.max_epochs=8", "data.train_size=160")
    medians = {"live_step_ms": 300.0, "cached_step_ms": 100.0, "build_images_per_second": 160 / 5.0}
    paid = made.break_even({name: Statistic(median=value) for name, value in medians.items()})
    assert paid.seconds_saved_per_epoch == pytest.approx(10 * 0.2)
    assert paid.seconds_to_build_a_view == pytest.approx(5.0)
    assert paid.paid_after_epochs_of_the_first_run == 5  # two views of 5 s by epochs of 2 s
    assert paid.seconds_saved_in_the_first_run == pytest.approx(8 * 2 - 2 * 5)


def test_experiments_without_teachers_are_refused(configure, tmp_path):
    config = configure("experiment=digits", "method=ce")
    with pytest.raises(UserError, match="A benchmark needs teachers"):
        benchmark.benchmark_of(config, tmp_path, repetitions=1, steps=2, images=8)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux reports private memory")
def test_the_memory_of_a_block_includes_a_peak_that_is_over_before_the_end():
    before = private_megabytes()
    with peak_private_memory() as peak:
        # Pages of the system: torch may take memory that an earlier test has freed.
        held = mmap.mmap(-1, 80_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        held.write(bytes(80_000_000))
        time.sleep(0.05)
        held.close()
        time.sleep(0.05)
    assert peak[0] >= before + 60


def test_synthetic_images_have_the_asked_shape_and_repeat(tmp_path):
    first = pack(Synthetic(5, 16, train_images=40, test_images=10), tmp_path / "first")
    again = pack(Synthetic(5, 16, train_images=40, test_images=10), tmp_path / "again")
    assert first.digest == again.digest
    assert first.splits["train"].images.shape == (40, 3, 16, 16)
    assert first.splits["test"].labels.unique().tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="expected num_classes ≥ 2, image_size ≥ 1"):
        Synthetic(num_classes=1)


@pytest.mark.slow
def test_the_command_writes_every_figure_with_its_spread_into_the_run_folder(tmp_path, monkeypatch, capfd):
    roots = [f"paths.{name}={tmp_path}/{name}" for name in ("data", "teachers", "outputs")]
    short = ["benchmark.repetitions=1", "benchmark.steps=2", "benchmark.images=32"]
    monkeypatch.setattr(sys, "argv", ["benchmark", *roots, *SMALL, *short])
    benchmark.main()
    (file,) = (tmp_path / "outputs" / "runs" / "digits_amtml").glob("*/benchmark.json")
    record = read_record(BenchmarkRecord, file, fix="")
    assert {*KEYS} <= {name for name, figure in record.figures.items() if figure.spread is not None}
    assert record.figures["teacher_parameters_resident"].median == 0
    assert all(record.figures[name].median > 0 for name in (*STEPS, "ratio_to_limit"))
    assert 0 < record.figures["input_share"].median < 1
    assert record.break_even.views == 8
    shown = capfd.readouterr().out
    assert "cached step ÷ cross-entropy step" in shown
    assert "untrained teachers: ('vgg8_quarter',)" in shown
    assert "benchmark" not in file.parent.name
