"""Methods with several networks or optimisers: each part learns, none leaks into another, all resume."""

from copy import deepcopy
from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from amtml_pl.distill.doctor.step import check_step
from amtml_pl.distill.loops.dml import MutualLearning, mutual_loss
from amtml_pl.distill.loops.hard_samples import HardSamples
from amtml_pl.distill.loops.mmkd import MMKD, similarity_statistics
from amtml_pl.distill.loops.mtkd_rl import MTKDRL, Agent, agent_loss, aggregated_weights, reward
from amtml_pl.distill.published.dml import PublishedMutualLearning, published_mutual_loss
from amtml_pl.distill.step import DistillModule
from amtml_pl.errors import UserError
from amtml_pl.losses.ce import CrossEntropy
from amtml_pl.losses.kd_each import PerTeacherSoftTargetLoss, soft_target_losses
from amtml_pl.losses.regression import FeatureRegression
from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.models.taps import TappedNetwork, tap_shapes
from amtml_pl.teachers.live import LiveTeachers, Teacher
from amtml_pl.training.assemble import check_optimization
from amtml_pl.training.checkpoints import AtomicCheckpointIO
from amtml_pl.types import Batch, OfferedFeatures, TensorShapes
from amtml_pl.weighting.confidence import ConfidenceWeighting, confidence_weights
from amtml_pl.weighting.uniform import UniformWeighting
from golden_steps import assert_golden, teachers_of

pytestmark = pytest.mark.numbers

K = 4


def bare():
    return CifarResNet(8, K, [4, 4, 4, 8])


def network(taps=()):
    return TappedNetwork(bare(), mean=[0.5] * 3, std=[0.2] * 3, taps=taps)


def sgd(groups):
    return torch.optim.SGD(groups, lr=0.05, momentum=0.9)


def halve(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)


def weighing(kind, M=2, weighting=None, left_out=None, without_a_coefficient=None, class_maps=(), **options):
    torch.manual_seed(0)
    student = network(("layer3",))
    maps = class_maps or [None] * M
    source = LiveTeachers([Teacher(f"t{m}", network(("layer3",)), maps[m]) for m in range(M)])
    offered = dict.fromkeys(source.names, OfferedFeatures("layer3"))
    hints = {f"{name}/layer3": (8, 8, 8) for name in source.names}
    shapes = TensorShapes(K, source.names, tap_shapes(student, 32)[1], hints, offered)
    regression = FeatureRegression(["layer3"])
    terms = {"ce": CrossEntropy(), "kd_each": PerTeacherSoftTargetLoss(4.0), "regression": regression}
    for term in terms.values():
        term.build(shapes)
    terms = {name: term for name, term in terms.items() if name != left_out}
    coef = {"ce": 1.0, "kd_each": 0.7, "regression": 5.0, without_a_coefficient: 0.0}
    weighting = weighting or UniformWeighting()
    return kind(student, terms, coef, K, sgd, halve, teachers=source, weighting=weighting, **options)


def mutual(kind=MutualLearning, peers=2, **options):
    torch.manual_seed(0)
    others = [bare() for _ in range(peers)]
    return kind(network(), {"ce": CrossEntropy()}, {"ce": 1.0}, K, sgd, halve, peers=others, **options)


MAKERS = {
    "dml": mutual,
    "dml_published": lambda: mutual(PublishedMutualLearning),
    "mtkd_rl": lambda: weighing(MTKDRL, hidden=8),
    "mmkd": lambda: weighing(MMKD, meta_every=2, buffer_size=8),
}


def batches(count=4, B=8):
    generator = torch.Generator().manual_seed(1)
    return [
        Batch(torch.rand(B, 3, 32, 32, generator=generator), torch.arange(B) % K, torch.arange(B), 1, "train")
        for _ in range(count)
    ]


def with_teachers(module, batch):
    return replace(batch, teachers=module.teacher_source(batch))


def fit(module, folder, epochs, resume=None):
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, plugins=[AtomicCheckpointIO()], enable_checkpointing=False,
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, DataLoader(batches(), batch_size=None), ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return module


@pytest.mark.parametrize("name", MAKERS)
def test_every_part_moves_the_schedule_steps_once_an_epoch_and_a_resumed_fit_ends_likewise(name, tmp_path):
    module = MAKERS[name]()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    whole = fit(module, tmp_path, 2).state_dict()
    unmoved = [
        key for key, parameter in module.named_parameters()
        if torch.equal(parameter, before[key]) and not key.endswith("project.bias")
    ]  # fmt: skip
    assert unmoved == []
    assert not [key for key in whole if "teacher" in key]
    assert module.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05 / 4)
    (tmp_path / "cut").mkdir()
    fit(MAKERS[name](), tmp_path / "cut", 1)
    resumed = fit(MAKERS[name](), tmp_path / "cut", 2, tmp_path / "cut" / "1.ckpt").state_dict()
    assert all(torch.equal(tensor, resumed[key]) for key, tensor in whole.items())


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - {"dml_published"}))
def test_the_doctor_finds_every_parameter_in_one_optimiser_and_nothing_wrong(name):
    assert check_step(MAKERS[name](), batches(1)[0]).findings == ()


@pytest.mark.parametrize("kind", [MTKDRL, MMKD])
def test_weights_sum_to_one_are_constants_and_one_teacher_has_all(kind):
    module = weighing(kind)
    step = module.distill_step(batches(1)[0])
    for weights in (step.weights, step.feature_weights):
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(8))
        assert not weights.requires_grad
    alone = weighing(kind, M=1).distill_step(batches(1)[0])
    torch.testing.assert_close(alone.weights, torch.ones(8, 1))


@pytest.mark.parametrize("missing", [{"left_out": "kd_each"}, {"without_a_coefficient": "regression"}])
def test_a_missing_term_or_coefficient_is_refused(missing):
    [name] = missing.values()
    with pytest.raises(UserError, match=rf"needs the loss term '{name}'.*\n.*loss=\[ce,kd_each,regression\]"):
        weighing(MMKD, **missing)


def test_another_weighting_is_refused():
    with pytest.raises(UserError, match=r"cannot use ConfidenceWeighting.\n.*weighting=uniform"):
        weighing(MMKD, weighting=ConfidenceWeighting())


# ---- deep mutual learning


def test_both_mutual_losses_are_finite_for_saturated_outputs_and_the_peers_are_constant():
    own, others = 1e4 * torch.eye(3)[:, :2], (-1e4 * torch.eye(3)[None, :, :2]).requires_grad_()
    for loss in (mutual_loss, published_mutual_loss):
        logits = own.clone().requires_grad_()
        value = loss(logits, others)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()
        assert others.grad is None


class Silent(MutualLearning):
    def mutual(self, logits, others):
        return super().mutual(logits, others).detach()


class Blind(MTKDRL):
    def weights_loss(self, batch, step, lr):
        return super().weights_loss(batch, step, lr).detach()


class HalfBlind(MMKD):
    def weigh(self, student, teachers):
        weights, feature_weights = super().weigh(student, teachers)
        return weights, feature_weights.detach()


@pytest.mark.parametrize(
    ("make", "found"),
    [(lambda: mutual(Silent), ["dead-term/mutual", "idle-for-the-peer1/mutual@peer1",
                               "idle-for-the-peer2/mutual@peer2"]),
     (lambda: mutual(PublishedMutualLearning), ["not-zero-at-the-targets/mutual"]),
     (lambda: weighing(Blind, hidden=8), ["idle-for-the-agent/weights"]),
     (lambda: weighing(HalfBlind), ["idle-for-the-features-network/weights"])],
)  # fmt: skip
def test_the_doctor_sees_through_the_parts_of_a_loop_that_learn_nothing(make, found):
    assert [finding.name for finding in check_step(make(), batches(1)[0]).findings] == found


@pytest.mark.parametrize(
    ("given", "text"),
    [({"coef_mutual": 0.0}, "coef_mutual=0.*\n.*method=ce"), ({"peers": 0}, "needs a peer network")],
)
def test_mutual_learning_without_peers_or_coefficient_is_refused(given, text):
    assert mutual(peers=3).networks_trained == 4
    with pytest.raises(UserError, match=text):
        mutual(**given)


def test_mutual_learning_as_published_updates_all_networks_by_the_outputs_before_the_first_update(tmp_path):
    """After DML_3S_only.ipynb: ``KLDivLoss()(p_h, p)`` is the mean of ``p (log p - p_h)`` over elements."""
    module = mutual(PublishedMutualLearning).double()
    copies = [deepcopy(network).train() for network in module.networks().values()]
    optimizers = [sgd(copy.parameters()) for copy in copies]
    steps = [replace(batch, images=batch.images.double()) for batch in batches(2)]
    for batch in steps:
        logits = [copy(batch.images).logits for copy in copies]
        p = [each.softmax(dim=1) for each in logits]
        for j, optimizer in enumerate(optimizers):
            peers = [(p[j] * (p[j].log() - p[h].detach())).mean() for h in range(3) if h != j]
            optimizer.zero_grad()
            (F.cross_entropy(logits[j], batch.labels) + 0.5 * sum(peers)).backward()
            optimizer.step()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, DataLoader(steps, batch_size=None))
    for network, copy in zip(module.networks().values(), copies, strict=True):
        torch.testing.assert_close(network.state_dict(), copy.state_dict(), rtol=1e-9, atol=1e-12)


# ---- MTKD-RL


def test_a_reward_is_standardised_and_cut_off():
    torch.testing.assert_close(reward(torch.tensor([-1.0, 0.0, 1.0])), torch.tensor([0.0, 0.0, 1.0]))
    assert reward(torch.full((3,), 7.0)).tolist() == [0, 0, 0]
    assert reward(torch.tensor([7.0])).tolist() == [0]


def test_the_agent_reads_what_the_regressors_give_in_the_step_and_leaves_their_statistics():
    module = weighing(MTKDRL, hidden=8)
    before = {name: buffer.clone() for name, buffer in module.regression.named_buffers()}
    step = module.distill_step(batches(1)[0])
    assert all(torch.equal(buffer, before[name]) for name, buffer in module.regression.named_buffers())
    torch.testing.assert_close(step.observation.errors, module.regression.errors(step))


def test_a_rewarded_sample_pulls_its_weights_up_and_another_does_not():
    torch.manual_seed(0)
    agent, state = Agent(3, 8, 2), torch.eye(3)
    weights, _ = agent(state)
    agent_loss(weights, torch.tensor([0.0, 1.0, 0.0])).backward()
    rows = agent.body[0].weight.grad.abs().sum(dim=0)
    assert rows[1] > 0
    assert rows[0] == rows[2] == 0


# ---- MMKD


def test_a_meta_step_leaves_the_student_unchanged():
    module = weighing(MMKD).train()
    batch = with_teachers(module, batches(1)[0])
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    module.meta_loss(batch, lr=0.1).backward()
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.student.parameters())
    for net in (module.for_logits, module.for_features):
        assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def in_double_precision(module, batch):
    """Return a batch with teacher outputs, all in float64; move the regressors' batch norm."""
    module.double()
    generator = torch.Generator().manual_seed(2)
    for regressor in module.regression.regressors:
        for each in regressor.norm.state_dict().values():
            if each.is_floating_point():
                each.add_(torch.rand(each.shape, generator=generator, dtype=torch.float64))
    for teacher in module.teacher_source.teachers:
        teacher.network.double()
    batch = replace(batch, images=batch.images.double())
    return with_teachers(module, batch)


def test_the_meta_loss_is_that_of_a_copy_which_takes_two_matching_steps_and_one_from_labels():
    module = weighing(MMKD)
    batch = in_double_precision(module, batches(1, B=4)[0])
    copy = deepcopy(module.student)
    steps = torch.optim.SGD(copy.parameters(), lr=0.1)
    for matching in (True, True, False):
        steps.zero_grad()
        outputs = copy(batch.images)
        labelled = F.cross_entropy(outputs.logits, batch.labels)
        loss = matched_by_loops(module, outputs, batch) if matching else labelled
        loss.backward()
        steps.step()
    expected = F.cross_entropy(copy(batch.images).logits, batch.labels)
    torch.testing.assert_close(module.meta_loss(batch, lr=0.1), expected, rtol=1e-9, atol=0)


def matched_by_loops(module, student, batch):
    """Return the mean of divergences at T = 4 and errors of maps, weighted by the networks."""
    names, B = batch.teachers.names, len(batch.labels)
    targets = [batch.teachers.hints[f"{name}/layer3"] for name in names]
    own = student.features["layer3"]
    total = 0.0
    for b in range(B):
        logits = [*batch.teachers.logits[b], student.logits[b]]
        seen = [similarity_by_loops(each, b) for each in (*targets, own)]
        weights = module.for_logits(torch.cat(logits).detach()).softmax(0).detach()
        feature_weights = module.for_features(torch.cat(seen).detach()).softmax(0).detach()
        for m, regressor in enumerate(module.regression.regressors):
            q, p = ((each / 4.0).softmax(0) for each in (student.logits[b], logits[m]))
            total = total + 0.7 * weights[m] * 16 * (p * (p / q).log()).sum() / B
            made = torch.einsum("dc,chw->dhw", regressor.project.weight[:, :, 0, 0], own[b])
            norm = regressor.norm
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            centred = made + (regressor.project.bias - norm.running_mean)[:, None, None]
            made = (scale[:, None, None] * centred + norm.bias[:, None, None]).clamp_min(0)
            total = total + 5.0 * feature_weights[m] * (made - targets[m][b]).square().mean() / B
    return total


def similarity_by_loops(maps, b):
    """Return mean, deviation and maximum of a sample's cosines to the other samples."""
    rows = maps.flatten(1)
    cosines = [rows[b] @ rows[c] / (rows[b].norm() * rows[c].norm()) for c in range(len(rows)) if c != b]
    cosines = torch.stack(cosines)
    deviation = (cosines - cosines.mean()).square().mean().sqrt()
    return torch.stack([cosines.mean(), deviation, cosines.max()])


class Remembering(MMKD):
    """Loop whose networks see, in each of the two matching steps, what they saw in it the first time."""

    memories, calls = (), 0

    def weigh(self, student, teachers):
        if len(self.memories) < 2:
            self.memories = (*self.memories, student.map(torch.detach))
        remembered = self.memories[self.calls % 2]
        self.calls += 1
        return super().weigh(remembered, teachers)


@pytest.mark.parametrize("weigher", ["for_logits", "for_features"])
def test_the_meta_gradient_is_the_derivative_through_what_the_networks_give_and_not_what_they_see(weigher):
    plain, module = weighing(MMKD), weighing(Remembering)
    in_double_precision(module, batches(1, B=4)[0])
    batch = in_double_precision(plain, batches(1, B=4)[0])
    plain.meta_loss(batch, lr=0.1).backward()
    module.meta_loss(batch, lr=0.1)  # to be remembered
    pairs = [[*getattr(each, weigher).parameters()] for each in (module, plain)]
    entries = [
        (p, i, float(same.grad.view(-1)[i])) for p, same in zip(*pairs, strict=True) for i in range(p.numel())
    ]
    order = torch.randperm(len(entries), generator=torch.Generator().manual_seed(0)).tolist()
    drawn = [entries[k] for k in order[:8]]
    assert sum(gradient != 0 for _, _, gradient in drawn) >= 3  # others lead to hidden units that are silent
    for parameter, i, gradient in drawn:
        # Larger differences cross the kink of some ReLU in the student.
        values = [meta_loss_beside(module, batch, parameter, i, away) for away in (1e-6, -1e-6)]
        within = 64 * torch.finfo(torch.float64).eps * max(values) / 2e-6  # of two losses that are rounded
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(gradient, rel=1e-4, abs=within)


def meta_loss_beside(module, batch, parameter, entry, away):
    """Return the meta loss with one entry of a parameter moved, and move it back."""
    values = parameter.detach().view(-1)
    before = values[entry].clone()
    values[entry] += away
    loss = float(module.meta_loss(batch, lr=0.1).detach())
    values[entry] = before
    return loss


def test_similarities_are_described_for_any_batch():
    assert similarity_statistics(torch.rand(1, 2, 3, 3)).tolist() == [[0, 0, 0]]
    same = similarity_statistics(torch.ones(4, 2, 3, 3))
    torch.testing.assert_close(same, torch.tensor([[1.0, 0.0, 1.0]]).expand(4, -1))


def test_hard_samples_fill_up_first_and_are_replaced_by_wrong_ones_after():
    source, right = LiveTeachers([Teacher("t", network())]), torch.zeros(8, dtype=torch.bool)
    first, second, third = (replace(each, teachers=source(each)) for each in batches(3))
    kept = HardSamples(12)
    kept.keep(first, right)
    assert not kept.is_full
    kept.keep(second, right)
    assert kept.is_full
    wrong = torch.tensor([True, False] * 4)
    kept.keep(third, wrong)
    found = {tuple(image.flatten()[:3].tolist()) for image in kept.kept.images}
    assert [tuple(image.flatten()[:3].tolist()) in found for image in third.images] == wrong.tolist()
    again = HardSamples(12)
    again.load(kept.state())
    assert torch.equal(again.kept.images, kept.kept.images)
    assert torch.equal(again.kept.teachers.logits, kept.kept.teachers.logits)


def test_meta_steps_are_counted_over_epochs_that_are_shorter_than_the_time_between_them(tmp_path):
    module = weighing(MMKD, meta_every=6, buffer_size=8)
    before = [parameter.clone() for parameter in module.for_logits.parameters()]
    fit(module, tmp_path, 1)
    assert all(map(torch.equal, module.for_logits.parameters(), before))
    fit(module, tmp_path, 2, tmp_path / "1.ckpt")
    assert not any(map(torch.equal, module.for_logits.parameters(), before))


def test_hard_samples_of_a_checkpoint_go_where_the_student_is():
    module = weighing(MMKD, buffer_size=8)
    batch = with_teachers(module, batches(1)[0])
    module.hard.keep(batch, torch.zeros(8, dtype=torch.bool))
    module.to("meta").on_train_start()  # a second device that every machine has
    assert module.hard.kept.images.device.type == "meta"
    assert module.hard.kept.teachers.logits.device.type == "meta"


def test_a_compiled_student_takes_meta_steps():
    module = weighing(MMKD)
    module.student.network.compile(backend="aot_eager")
    module.meta_loss(with_teachers(module, batches(1)[0]), lr=0.1).backward()
    assert module.for_logits[2].bias.grad.abs().sum() > 0


@pytest.mark.parametrize("steps_itself", [True, False])
def test_a_loop_whose_attribute_and_lightnings_switch_disagree_is_refused(steps_itself):
    own = {"steps_itself": steps_itself, "automatic_optimization": steps_itself}
    loop = type("Own", (DistillModule,), own)
    expected = (
        rf"(?s)Own sets steps_itself .*got {steps_itself}, expected .*steps_itself = {not steps_itself}"
    )
    with pytest.raises(UserError, match=expected):
        check_optimization(loop.__new__(loop))


def test_mutual_learning_correct_and_as_published(golden):
    given, expected = golden("dml")
    peers, labels = given["peers"].double(), given["labels"]
    for j in range(3):
        others = torch.stack([peers[h] for h in range(3) if h != j])
        ce = F.cross_entropy(peers[j], labels)
        assert_golden(ce + mutual_loss(peers[j], others), expected["loss"][j])
        assert_golden(ce + published_mutual_loss(peers[j], others), expected["reference_bug"][j])


def test_the_static_aggregation_of_mtkd_rl(golden):
    given, expected = golden("mtkd_rl_weights")
    logits = teachers_of(given)
    divergence = soft_target_losses(given["student_logits"].double(), logits, given["T"])
    confidence = confidence_weights(logits, given["labels"])
    assert_golden(aggregated_weights(given["policy"].double(), confidence, divergence), expected["weights"])


@pytest.mark.parametrize("kind", [MMKD, MTKDRL])
def test_a_loop_weighs_teachers_that_do_not_know_every_class(kind):
    module = weighing(kind, class_maps=([0, 1, None, None], [None, 1, 2, 3]))
    found = module.break_down(with_teachers(module, batches(1)[0]))
    assert all(torch.isfinite(component.value) for component in found.components)
    weights, labels = found.step.weights, found.step.labels
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(8))
    if kind is MTKDRL:
        for w in (weights, found.step.feature_weights):
            assert torch.equal(w[labels == 0], torch.tensor([[1.0, 0.0]] * 2))
            assert torch.equal(w[labels >= 2], torch.tensor([[0.0, 1.0]] * 4))
            assert (w[labels == 1] > 0).all()
