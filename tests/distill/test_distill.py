"""The training step with real networks: who is trained, what is logged, what stops it."""

import logging
import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from amtml_pl.distill.doctor.step import check_step
from amtml_pl.distill.step import DistillModule
from amtml_pl.errors import UserError
from amtml_pl.losses.adapter import AdapterEntropy, AdapterL2, JointAdapterLoss
from amtml_pl.losses.angle import AngleLoss
from amtml_pl.losses.ce import CrossEntropy
from amtml_pl.losses.hint import HintLoss
from amtml_pl.losses.kd import SoftTargetLoss
from amtml_pl.losses.term import LossTerm
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.teachers.live import LiveTeachers, Teacher
from amtml_pl.types import Batch, TensorShapes
from amtml_pl.weighting.adaptive import AdaptiveWeighting
from amtml_pl.weighting.uniform import UniformWeighting
from steps import CLASSES as K
from steps import STAGES, small_module, small_network

pytestmark = pytest.mark.numbers

sgd = partial(torch.optim.SGD, lr=0.1)


def all_terms():
    return {
        "ce": CrossEntropy(), "kd": SoftTargetLoss(4.0), "angle": AngleLoss(4.0),
        "hint": HintLoss(STAGES), "adapter": JointAdapterLoss(4.0),
        "adapter_entropy": AdapterEntropy(), "adapter_l2": AdapterL2(),
    }  # fmt: skip


def distiller(terms=None, weighting=None, teachers=2, coef=None):
    weighting = weighting or AdaptiveWeighting("layer3", "uniform", lr=0.01)
    names = [f"t{m}" for m in range(teachers)]
    module = small_module(terms or all_terms(), weighting, coef, teachers=names, weight_decay=5e-4)
    return module, module.teacher_source


def batches(count=3, size=8, split="train"):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, size, 3, 32, 32, generator=generator)
    labels = torch.randint(K, (count, size), generator=generator)
    index = torch.arange(count * size).view(count, size)
    return [Batch(*tensors, 1, split) for tensors in zip(images, labels, index, strict=True)]


def fit(module, data=None, epochs=1, resume=None, **options):
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    train, val = (DataLoader(made, batch_size=None) for made in (data or batches(), batches(2, split="val")))
    trainer.fit(module, train, val, ckpt_path=resume)
    return trainer


def test_a_fit_trains_and_saves_student_projections_and_adapter_and_nothing_of_a_teacher(tmp_path):
    module, source = distiller()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    frozen = [{k: v.clone() for k, v in t.network.state_dict().items()} for t in source.teachers]
    fit(module).save_checkpoint(tmp_path / "c.ckpt")
    assert [name for name, p in module.named_parameters() if torch.equal(p, before[name])] == []
    for teacher, old in zip(source.teachers, frozen, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in teacher.network.state_dict().items())
    state = torch.load(tmp_path / "c.ckpt", weights_only=True)["state_dict"]
    assert not [name for name in state if "teacher" in name]
    assert {"weighting.theta", "weighting.mixing", "terms.hint.projections.0"} <= set(state)


@pytest.mark.parametrize(("lr", "rate"), [(0.01, 0.01), (None, 0.1)])
def test_every_trainable_parameter_is_in_one_named_group_and_the_adapter_may_have_a_rate(lr, rate):
    module, _ = distiller()
    module.weighting.lr = lr
    optimizer = module.configure_optimizers()["optimizer"]
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in module.parameters())
    groups = [(group["name"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert groups == [("student", 0.1, 5e-4), ("terms", 0.1, 5e-4), ("weighting", rate, 0.0)]


def test_the_total_is_the_sum_of_coefficients_times_unweighted_terms_and_all_is_logged():
    coef = {"ce": 0.3, "kd": 0.7, "angle": 2.0, "hint": 3.0, "adapter": 1.0} | {
        "adapter_entropy": 0.5, "adapter_l2": 1e-4, "not_selected": 5.0,
    }  # fmt: skip
    module, _ = distiller(coef=coef)
    logged = {k: float(v) for k, v in fit(module, batches(1)).callback_metrics.items()}
    total = sum(coef[name] * logged[f"loss/{name}"] for name in all_terms())
    assert logged["loss/total"] == pytest.approx(total, rel=1e-5)
    assert {"val/acc", "val/loss", "train/acc", "weight/t0", "weight/t1", "weight_entropy"} <= set(logged)
    assert logged["weight/t0"] + logged["weight/t1"] == pytest.approx(1, abs=1e-5)
    assert logged["weight_above_0.95"] == 0


def test_without_teachers_the_same_module_trains_from_labels():
    trainer = fit(DistillModule(small_network(), {"ce": CrossEntropy()}, {"ce": 1.0}, K, optimizer=sgd))
    assert "loss/ce" in trainer.callback_metrics
    assert not [name for name in trainer.callback_metrics if name.startswith("weight")]


class Broken(LossTerm):
    def forward(self, step):
        return step.student.logits.sum() * float("nan")


def test_a_loss_that_is_not_a_number_stops_with_epoch_step_term_and_rows():
    terms = {"ce": CrossEntropy(), "kd": SoftTargetLoss(4.0), "broken": Broken()}
    module, _ = distiller(terms, UniformWeighting())
    with pytest.raises(UserError, match=r"epoch 0, step 0, .*loss/broken = nan.*\[0, 1, 2, 3, 4, 5, 6, 7\]"):
        fit(module)


class PerSample(LossTerm):
    def forward(self, step):
        return F.cross_entropy(step.student.logits, step.labels, reduction="none")


class Raising(LossTerm):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, step):
        raise self.error


MISTAKES = {
    r"^loss.own does not return one scalar for a batch \(got a torch.float32 tensor of shape \(8,\), "
    r"expected a tensor of shape \(\)\).\nFix: .*PerSample .*return value.mean\(\)$": PerSample(),
    r"^loss.own raised KeyError in forward: 'resnet56/layer2'. After .*\nFix: correct loss.own "
    r"\(traceback=true prints the traceback\), or leave it out of 'loss=\[...\]'$": Raising(
        KeyError("resnet56/layer2")
    ),
    r"^expected two teachers$": Raising(UserError("expected two teachers")),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_in_an_own_term_is_one_message_with_its_name(message, compiled):
    module, _ = distiller({"kd": SoftTargetLoss(4.0), "own": MISTAKES[message]}, UniformWeighting())
    with pytest.raises(UserError, match=message):
        check_step(module, batches(1)[0])
    if compiled:
        module.compile_full_batches(8, required=True)
    with pytest.raises(UserError, match=message):  # where the doctor is switched off
        fit(module)


class OneWeightPerImage(UniformWeighting):
    def forward(self, student, teachers, labels):
        return super().forward(student, teachers, labels)[:, 0]


class RaisingWeighting(UniformWeighting):
    def forward(self, student, teachers, labels):
        return student.features["layer9"]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("weighting", "message"),
    [
        (
            OneWeightPerImage,
            r"^The weighting does not return a weight for each image and teacher \(got a torch.float32 "
            r"tensor of shape \(8,\), expected a tensor of shape \(8, 2\)\)."
            r"\nFix: .*OneWeightPerImage .*\(B, M\)",
        ),
        (
            RaisingWeighting,
            r"^weighting raised KeyError in forward: 'layer9'. After .*\nFix: correct weighting "
            r"\(traceback=true prints the traceback\), or choose another weighting$",
        ),
    ],
)
def test_a_mistake_in_an_own_weighting_is_one_message(weighting, message, compiled):
    module, _ = distiller({"kd": SoftTargetLoss(4.0)}, weighting())
    with pytest.raises(UserError, match=message):
        check_step(module, batches(1)[0])
    if compiled:
        module.compile_full_batches(8, required=True)
    with pytest.raises(UserError, match=message):
        fit(module)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 9 bytes")]
)
def test_a_lack_of_memory_is_not_blamed_on_the_term(error):
    module, _ = distiller({"kd": SoftTargetLoss(4.0), "own": Raising(error)}, UniformWeighting())
    with pytest.raises(type(error), match="memory"):
        fit(module)


class OneHot(UniformWeighting):
    """Weighting that learns and is collapsed from the start."""

    def build(self, shapes):
        self.logit = nn.Parameter(torch.tensor([30.0, 0.0]))

    def forward(self, student, teachers, labels):
        return self.logit.softmax(0).expand(len(labels), -1)


def test_a_collapsed_adapter_is_warned_of_once_and_by_name(caplog):
    terms = {"kd": SoftTargetLoss(4.0), "adapter": JointAdapterLoss(4.0)}
    module, _ = distiller(terms, OneHot())
    with caplog.at_level(logging.WARNING, logger="amtml_pl"):
        fit(module, epochs=3)
    warnings = [r.getMessage() for r in caplog.records if "collapsed" in r.getMessage()]
    assert len(warnings) == 1
    assert (
        "epoch 1/3: the weighting of the teachers has collapsed to one teacher per sample: 100%"
        in warnings[0]
    )


def test_uniform_weights_without_parameters_do_not_collapse(caplog):
    module, _ = distiller({"kd": SoftTargetLoss(4.0)}, UniformWeighting())
    with caplog.at_level(logging.WARNING, logger="amtml_pl"):
        trainer = fit(module)
    assert not [r for r in caplog.records if "collapsed" in r.getMessage()]
    assert float(trainer.callback_metrics["weight_entropy"]) == pytest.approx(math.log(2))


class SeesFloat32(LossTerm):
    def forward(self, step):
        tensors = [step.student.logits, step.teachers.logits, step.weights, *step.teachers.hints.values()]
        assert {t.dtype for t in tensors} == {torch.float32}
        assert (step.student.logits @ step.student.logits.T).dtype == torch.float32
        return step.student.logits.square().mean()


def test_terms_see_float32_under_mixed_precision():
    terms = {**all_terms(), "seen": SeesFloat32()}
    module, _ = distiller(terms)
    fit(module, precision="bf16-mixed")


def test_live_teachers_compute_in_float32_under_mixed_precision_as_those_of_a_cache_do():
    module, source = distiller()
    batch, outputs = batches(1)[0], []
    module.teacher_outputs_of = lambda given: outputs.append(source(given)) or outputs[-1]
    fit(module, data=[batch], precision="bf16-mixed")
    assert torch.equal(outputs[0].logits, source(batch).logits)


def test_a_single_image_and_a_single_teacher_make_a_step():
    module, _ = distiller(teachers=1)
    module.student.eval()
    module.trainer = pl.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    module.log = module.log_dict = lambda *args, **kwargs: None
    loss = module.training_step(batches(1, 1)[0], 0)
    loss.backward()
    assert torch.isfinite(loss)


TEACHERS = LiveTeachers([Teacher("a", small_network())])


def learned():
    weighting = AdaptiveWeighting("layer3", "uniform", lr=None)
    weighting.build(TensorShapes(K, ("a",), {"layer3": (8, 8, 8)}))
    return weighting


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"terms": {}}, "The loss has no terms"),
        ({"coef": {}}, r"loss terms \['ce'\] have no coefficient"),
        ({"teachers": TEACHERS}, "teachers but no weighting"),
        ({"terms": {"kd": SoftTargetLoss(4.0)}}, r"\['kd'\] need teachers, but the run has none"),
        ({"teachers": TEACHERS, "weighting": UniformWeighting(), "terms": {"adapter": JointAdapterLoss(4.0)}},
         r"The loss terms \['adapter'\] need a trainable .* \(got UniformWeighting\)"),
        ({"teachers": TEACHERS, "weighting": learned()},
         r"No loss term with a nonzero .* trains the weighting .*, AdaptiveWeighting \(got .*\['ce'\]"),
    ],
)  # fmt: skip
def test_parts_that_cannot_work_together_are_refused(change, text):
    coef = {"ce": 1.0, "kd": 1.0, "adapter": 1.0}
    given = {"terms": {"ce": CrossEntropy()}, "coef": coef, "teachers": None} | change
    with pytest.raises(UserError, match=text):
        DistillModule(small_network(), num_classes=K, optimizer=torch.optim.SGD, **given)


def test_dropout_draws_the_same_in_a_resumed_epoch_as_in_the_first_pass(tmp_path):
    def noisy():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 32 * 32, K))
        student = TappedNetwork(body, mean=[0.5] * 3, std=[0.25] * 3)
        return DistillModule(student, {"ce": CrossEntropy()}, {"ce": 1.0}, K, optimizer=sgd, seed=5)

    whole, first, second = noisy(), noisy(), noisy()
    fit(whole, epochs=2)
    fit(first, epochs=1).save_checkpoint(tmp_path / "c.ckpt")
    torch.rand(7)  # other random numbers of the second process
    fit(second, epochs=2, resume=tmp_path / "c.ckpt")
    assert torch.equal(whole.student.network[2].weight, second.student.network[2].weight)
