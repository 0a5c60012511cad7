"""How long the check before a fit takes, for every method at the size of CIFAR-100: make benchmark."""

import pytest
import torch

from amtml_pl.config.checks import check
from amtml_pl.distill.doctor.report import SAMPLES
from amtml_pl.distill.doctor.step import examine
from amtml_pl.models.classifier_head import Head
from amtml_pl.models.hint import Reading
from amtml_pl.teachers.live import LiveTeachers
from amtml_pl.training.assemble import training_module
from amtml_pl.training.settings import settings_of
from amtml_pl.types import Batch, TeacherOutputs
from test_methods import METHODS

SECONDS = 10.0


class Stored:
    """Outputs that are there already, as a cache serves them."""

    def __init__(self, teachers):
        self.names, self.teachers, self.kept = teachers.names, teachers, None

    def to(self, device):
        return self

    def __call__(self, batch):
        if self.kept is None:
            self.kept = self.teachers(batch)
        return TeacherOutputs(self.names, self.kept.logits, self.kept.hints)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_examined_within_ten_seconds(benchmark, configure, method):
    alone = method in ("ce", "dml", "dml_reference")
    teachers = "teacher=[]" if alone else "teacher=[resnet32,vgg8,wrn_16_2]"
    config = configure("experiment=cifar100", f"method={method}", "student=resnet20", teachers, "trainer=cpu")
    check(config)
    settings = settings_of(config)
    terms = settings.method.terms()
    selected = settings.teachers(terms)
    live = [each.fresh() for each in selected]
    hints = {}
    for teacher in live:
        hints |= teacher.hint_shapes(32)
    source = Stored(LiveTeachers(live)) if live else None
    module = training_module(settings, terms, source, hints)
    networks = {teacher.name: teacher for teacher in live}
    heads = {}
    for name in module.head_names():
        teacher, _, hint = name.partition("/")
        heads[name] = Head(networks[teacher].network.network, Reading.of(hint).tap)
    module.take_heads(heads)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(SAMPLES, 3, 32, 32, generator=generator), torch.arange(SAMPLES)
    batch = Batch(images, labels, labels, 1, "train")
    if source is not None:
        source(batch)
        validation = torch.rand(64, len(live), 100, generator=generator), torch.arange(64)
        module.judge_teachers(dict.fromkeys(source.names, 0.7), lambda: validation)
    benchmark.pedantic(examine, args=(module, batch), rounds=3, warmup_rounds=1)
    assert benchmark.stats.stats.median < SECONDS
