"""Logits at every stage, for unlike architectures."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.losses.kd_each import soft_target_losses
from amtml_pl.losses.ofa import OneForAllLoss, StageHead, enhanced_losses
from golden_steps import assert_golden, logit_step
from losses.terms import STAGES, built
from steps import make_step, with_gaps
from tiny_runs import CE, weights


def test_ofa(golden):
    given, expected = golden("ofa")
    student, teacher, labels, T, eps = (
        given[n] for n in ("student_logits", "teacher_logits", "labels", "T", "eps")
    )
    each = [*given["stage_logits"], student]
    losses = [enhanced_losses(logits, teacher[:, None], labels, T, eps).mean() for logits in each]
    assert_golden(torch.stack(losses), expected["each"])
    term, step = OneForAllLoss(["a", "b"], T, eps), logit_step(student, teacher[:, None], labels=labels)
    features = {stage: logits[..., None, None] for stage, logits in zip("ab", each, strict=False)}
    term.heads.extend([nn.Flatten(), nn.Flatten()])
    step = replace(step, student=replace(step.student, features=features))
    assert_golden(term(step), expected["loss"])


@given(
    seed=st.integers(0, 200), M=st.integers(1, 4), K=st.integers(3, 7), eps=st.sampled_from([0.5, 1.0, 1.5])
)
@settings(max_examples=20)
def test_the_losses_equal_a_loop_over_samples_teachers_and_known_classes(seed, M, K, eps):
    step = with_gaps(B=4, M=M, K=K, seed=seed, dtype=torch.float64)
    z, T, naive = step.student.logits, 2.0, []
    for b, m in product(range(4), range(M)):
        known = [k for k in range(K) if step.teachers.logits[b, m, k] > -torch.inf]
        p, q = ((v[known] / T).softmax(0) for v in (step.teachers.logits[b, m], z[b]))
        label = [float(k == step.labels[b]) for k in known]
        parts = [((p[i] + y) ** eps - y) * q[i].log() for i, y in enumerate(label)]
        naive.append(-sum(parts))
    naive = torch.stack(naive).view(4, M)
    losses = enhanced_losses(z, step.teachers.logits, step.labels, T, eps)
    torch.testing.assert_close(losses, naive)
    torch.testing.assert_close(*(torch.autograd.grad(v.sum(), z)[0] for v in (losses, naive)))


def test_the_gradient_is_the_students_share_of_the_target_minus_the_target():
    step, T = make_step(M=1, dtype=torch.float64), 2.0
    z, label = step.student.logits, F.one_hot(step.labels, 5)
    target = ((step.teachers.logits[:, 0] / T).softmax(1) + label) ** 1.5 - label
    losses = enhanced_losses(z, step.teachers.logits, step.labels, T, 1.5)
    expected = (target.sum(1, keepdim=True) * (z / T).softmax(1) - target) / T
    torch.testing.assert_close(torch.autograd.grad(losses.sum(), z)[0], expected)


def test_an_exponent_of_1_is_distillation_without_the_factor_of_the_temperature():
    step, T = make_step(dtype=torch.float64), 3.0
    z, teachers = step.student.logits, step.teachers.logits
    enhanced = enhanced_losses(z, teachers, step.labels, T, 1.0)
    entropy = torch.special.entr((teachers / T).softmax(2)).sum(2)
    torch.testing.assert_close(enhanced, soft_target_losses(z, teachers, T) / T**2 + entropy)


@pytest.mark.parametrize("M", [1, 3])
def test_the_loss_is_the_sum_over_the_heads_of_all_stages_and_the_logits(M):
    term, step = built(OneForAllLoss(list(STAGES), 2.0), 4, M, dtype=torch.float64)
    each = [head(step.student.features[stage]) for stage, head in zip(STAGES, term.heads, strict=True)]
    naive = 0.0
    for logits in [*each, step.student.logits]:
        losses = enhanced_losses(logits, step.teachers.logits, step.labels, 2.0, 1.5)
        naive = naive + sum(step.weights[b, m] * losses[b, m] for b, m in product(range(4), range(M))) / 4
    torch.testing.assert_close(term(step), naive)


def test_a_head_has_one_convolution_per_later_stage():
    maps = list(STAGES.values())
    sizes = [[tuple(m.weight.shape) for m in StageHead(maps[at:], 5).modules() if hasattr(m, "weight")]
             for at in range(3)]  # fmt: skip
    assert [len(each) for each in sizes] == [13, 7, 1]
    assert all(each[-1] == (5, 8) for each in sizes)
    assert StageHead(maps, 5)(torch.rand(2, 4, 8, 8)).shape == (2, 5)


def test_one_image_with_a_map_of_one_position_is_refused():
    head = StageHead([(4, 1, 1), (4, 1, 1)], 5)
    with pytest.raises(UserError, match=r"batch norm on one value(.|\n)*data.batch_size"):
        head(torch.rand(1, 4, 1, 1))
    assert head.eval()(torch.rand(1, 4, 1, 1)).shape == (1, 5)


def test_a_teacher_that_does_not_know_the_label_adds_its_probabilities_alone():
    step = with_gaps(B=4, M=1, K=3, dtype=torch.float64)
    logits = torch.tensor([1.0, 2.0, -torch.inf], dtype=torch.float64).expand(4, 1, 3)
    label = torch.full_like(step.labels, 2)
    found = enhanced_losses(step.student.logits, logits, label, 1.0, 1.5)
    own = step.student.logits[:, :2].log_softmax(1)
    torch.testing.assert_close(found[:, 0], -(logits[:, 0, :2].softmax(1) ** 1.5 * own).sum(1))


def test_a_transformer_learns_from_a_resnet_and_its_export_has_no_head(run):
    pytest.importorskip("timm")
    record, folder = run(
        "experiment=digits", *CE, "method=ofa", "student=vit_tiny", "teacher=[resnet8]",
        "trainer.max_epochs=1",
        "teacher.resnet8.recipe_overrides=['trainer.max_epochs=1','logger=[]']",
        "+student.network.depth=2", "+student.network.embed_dim=48",
        "student.stages=[blocks.0,blocks.1]", "student.hint=blocks.1",
    )  # fmt: skip
    assert record.status == "completed"
    checkpoint = torch.load(folder.last_checkpoint, weights_only=True)["state_dict"]
    assert any(name.startswith("terms.ofa.heads.") for name in checkpoint)
    exported = weights(folder)
    assert exported
    assert not [name for name in exported if "heads" in name or "terms" in name]
    assert {f"student.network.{name}" for name in exported} == {
        n for n in checkpoint if n.startswith("student.")
    }
