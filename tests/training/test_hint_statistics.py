"""A run with balanced features reads statistics of its own views, and repeats after an interruption."""

import os
import signal

import pytest
import torch

from amtml_pl.errors import Preempted, UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.teachers.cache.statistics import statistics_file
from amtml_pl.training.connect import run_doctor
from amtml_pl.types import Batch
from tiny_runs import CE, TINY, assert_bitwise_equal, at_step, ready, weights

BALANCED = ("experiment=digits", "method=balanced", *TINY)
BACKBONE = (
    "experiment=digits", "method=balanced", *CE, "teacher=[resnet8]", "teacher.resnet8.pretrained=true",
    "teacher.resnet8.network._target_=tiny_runs.features_only", "teacher.resnet8.head=none",
)  # fmt: skip


def made(configure, tmp_path, *words):
    return ready(configure(*BALANCED, *words), RunFolder(tmp_path / "run"))


def buffers_of(found):
    return dict(found.module.terms["balanced"].named_buffers())


@pytest.mark.parametrize("kind", ["per_channel", "phi_s"])
def test_the_maps_of_all_views_of_a_run_have_mean_zero_and_variance_one(configure, tmp_path, kind):
    found = made(configure, tmp_path, "data.views=2", f"loss.balanced.scaling={kind}", "cache.hints=float32")
    assert found.cache.missing() == []
    for teacher, scaling in zip(found.cache.teachers, found.module.terms["balanced"].scalings, strict=True):
        [store] = teacher.hints.values()
        maps = scaling(torch.cat([store.open(view).whole() for view in found.cache.views]))
        variance, mean = torch.var_mean(maps.double(), dim=(0, 2, 3), correction=0)
        varies = variance > 0.5
        assert varies.any()
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
        torch.testing.assert_close(variance[varies], torch.ones_like(variance[varies]), atol=1e-3, rtol=0)
        assert variance[~varies].abs().max().item() == 0 if len(variance[~varies]) else True


def test_they_do_not_depend_on_views_that_other_runs_have_built(configure, tmp_path):
    own = "data.views=2"
    first = buffers_of(made(configure, tmp_path, own))
    wider = buffers_of(made(configure, tmp_path, "data.views=3", "trainer.max_epochs=3"))
    assert_bitwise_equal(buffers_of(made(configure, tmp_path, own)), first)
    assert not torch.equal(*(found["scalings.0.mean"] for found in (first, wider)))


def test_outputs_that_are_cached_without_statistics_are_summed_later(configure, tmp_path):
    found = made(configure, tmp_path)
    files = [statistics_file(t.hints[tap], view) for t in found.cache.teachers for tap in t.hints
             for view in found.cache.views]  # fmt: skip
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    assert_bitwise_equal(buffers_of(made(configure, tmp_path)), buffers_of(found))
    assert [file.read_bytes() for file in files] == before


@pytest.mark.numbers
def test_an_interrupted_run_drops_the_same_teachers_and_ends_with_the_same_bits(run, monkeypatch):
    job = (*BALANCED, "checkpoint_minutes=null", "doctor=false")
    whole, first = run(*job, name="whole")
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Preempted):
            run(*job, name="cut")
    again, second = run(*job, name="cut")
    assert again.metrics == whole.metrics
    assert_bitwise_equal(weights(second), weights(first))
    kept = torch.load(second.last_checkpoint, weights_only=True)["state_dict"]
    assert torch.isfinite(kept["terms.balanced.scalings.0.transform"]).all()


def test_hints_alone_teach_and_the_doctor_finds_nothing(configure, tmp_path, monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", "tiny_runs.features_only")
    words = (*BACKBONE, "loss=[ce,balanced]", f"paths.teachers={tmp_path / 'teachers'}")
    found = ready(configure(*words), RunFolder(tmp_path / "run"))
    assert run_doctor(found).findings == ()
    batch: Batch = found.data.sample(32)
    assert torch.isfinite(found.module.break_down(batch).components[1].value)


def test_live_teachers_are_refused_with_the_way_out(configure, tmp_path):
    with pytest.raises(
        UserError, match=r"\['balanced'\] need statistics .*got teacher_source=live, expected"
    ) as refused:
        made(configure, tmp_path, "teacher_source=live")
    assert "teacher_source=cached" in refused.value.fix
