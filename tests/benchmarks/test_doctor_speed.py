"""Time of the check before a fit, for every method at the size of CIFAR-100: make benchmark."""

import pytest
import torch

from amtml_pl.config.checks import check
from amtml_pl.distill.doctor.report import SAMPLES
from amtml_pl.distill.doctor.step import check_step
from amtml_pl.types import Batch
from test_methods import METHODS, WITHOUT_TEACHERS
from test_pairs import Method, teachers_of

SECONDS = 10.0


@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_examined_within_ten_seconds(benchmark, configure, method):
    """The teachers' outputs exist already, as with a cache."""
    teachers = "teacher=[]" if method in WITHOUT_TEACHERS else "teacher=[resnet32,vgg8,wrn_16_2]"
    config = configure("experiment=cifar100", f"method={method}", "student=resnet20", teachers, "trainer=cpu")
    check(config)
    torch.manual_seed(0)
    labels = torch.arange(SAMPLES)
    batch = Batch(torch.rand(SAMPLES, 3, 32, 32), labels, labels, 1, "train")
    made = Method(config, batch, *(teachers_of(config, batch) if config.teacher else ()))
    benchmark.pedantic(
        check_step, args=(made.module(config.student, made.kept), batch), rounds=3, warmup_rounds=1
    )
    assert benchmark.stats.stats.median < SECONDS
