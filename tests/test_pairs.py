"""Every student of conf/student takes a step with every method of conf/method."""

from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from torch import nn

from amtml_pl.config.build import build_object
from amtml_pl.config.paths import config_directory
from amtml_pl.distill.doctor.step import check_step
from amtml_pl.models.classifier_head import ClassifierHead
from amtml_pl.models.hint_statistics import HintStatistics
from amtml_pl.models.taps import TappedNetwork, tap_shapes
from amtml_pl.teachers.live import LiveTeachers
from amtml_pl.training import assemble
from amtml_pl.training.execution import EAGER
from amtml_pl.training.selected_teacher import SelectedTeacher
from amtml_pl.training.settings import settings_of
from amtml_pl.types import Batch, ModelOutputs, TeacherOutputs

pytestmark = pytest.mark.slow

METHODS, STUDENTS = (
    {file.stem: file for file in sorted((config_directory() / group).glob("*.yaml"))}
    for group in ("method", "student")
)
# One of each family, with methods that read its maps in different ways.
PAIRED = {
    "amtml": "vgg8_quarter", "amtml_adapter": "resnet14", "amtml_published": "shufflenet_v2",
    "at": "wrn_10_1", "camkd": "resnet18", "aekd_f": "mobilenet_v2", "mmkd": "vgg8_quarter",
    "rkd": "densenet121", "dml": "resnet8_thin",
}  # fmt: skip
# What the files of conf/student add to.
DEFAULTS = OmegaConf.load(config_directory() / "train.yaml").student
K, SIDE, STATISTICS = 10, 32, {"mean": [0.5] * 3, "std": [0.5] * 3}


def network_file(student):
    """Return the student's node as a command composes it."""
    return OmegaConf.merge(DEFAULTS, OmegaConf.load(STUDENTS[student]))


class StandIn(TappedNetwork):
    """Returns cheap maps of the shapes of a network's taps, and logits from the last."""

    def __init__(self, shapes, taps, hint):
        super().__init__(nn.Linear(shapes[hint][0], K), **STATISTICS)
        self.hint, self.taps = hint, tuple(taps)
        self.scales = nn.ParameterList(torch.rand(shapes[path]) for path in [*taps, hint])

    def forward(self, images):
        brightness = 0.1 + images.mean(dim=(1, 2, 3))[:, None, None, None]
        *maps, last = (torch.sin(scale / brightness) for scale in self.scales)
        return ModelOutputs(self.network(last.mean(dim=(2, 3))), dict(zip(self.taps, maps, strict=True)))


class Kept:
    """A teacher source with the outputs for one batch."""

    def __init__(self, outputs: TeacherOutputs):
        self.outputs, self.names = outputs, outputs.names

    def to(self, device):
        return self

    def __call__(self, batch):
        return self.outputs


def teachers_of(config, samples):
    """Return the teachers of a method, and their outputs for a batch."""
    settings = settings_of(config)
    live = LiveTeachers([each.fresh() for each in settings.teachers()])
    return live, Kept(live(samples))


@dataclass
class Method:
    """A method's configuration, its batch, its teachers, and their outputs."""

    config: DictConfig
    samples: Batch
    selected: tuple[SelectedTeacher, ...] = ()  # which compose their recipes once for all students
    live: LiveTeachers | None = None
    kept: Kept | None = None

    def hints(self):
        """Return the teachers' maps by flat name."""
        return {} if self.kept is None else self.kept.outputs.hints

    def module(self, student, source):
        """Return the training module with another student, calibrated as before a fit."""
        self.config.student = student
        shapes = {name: tuple(hint.shape[1:]) for name, hint in self.hints().items()}
        torch.manual_seed(0)
        settings = replace(settings_of(self.config), selected=self.selected)
        module = assemble.training_module(settings, source, shapes, EAGER)
        networks = {} if self.live is None else {t.name: t.network.network for t in self.live.teachers}
        wanted = [name.split("/") for name in module.head_names()]
        module.set_teacher_heads(
            {f"{name}/{tap}": ClassifierHead(networks[name], tap) for name, tap in wanted}
        )
        module.set_hint_statistics({name: HintStatistics.of(hint) for name, hint in self.hints().items()})
        held_out = None if self.kept is None else (self.kept.outputs.logits, self.samples.labels)
        module.calibrate_weighting(dict.fromkeys(networks, 0.5), lambda: held_out)
        return module


def batch():
    torch.manual_seed(0)
    return Batch(torch.rand(6, 3, SIDE, SIDE), torch.arange(6) % K, torch.arange(6), 1, "train")


def with_student(config, student):
    paired = deepcopy(config)
    paired.student = student
    return paired


@pytest.fixture(scope="module")
def composed():
    """Return a function that composes the demo, whose teachers are of three families."""
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        yield lambda *words: compose("train", overrides=["experiment=digits", *words])


@pytest.fixture(scope="module")
def methods(composed):
    """Return every method; those that read the same hints share their teachers' outputs.

    The student has four stages: methods that pair stages then read all stages of every teacher.
    """
    built, found = {}, {}
    for name in METHODS:
        config = composed(f"method={name}", "student=vgg8_quarter")
        found[name] = Method(config, batch())
        if config.teacher:
            settings = settings_of(config)
            selected = settings.teachers()
            wanted = tuple((each.name, each.hints) for each in selected)
            if wanted not in built:
                built[wanted] = teachers_of(config, batch())
            found[name] = Method(config, batch(), settings.selected, *built[wanted])
    return found


@pytest.fixture(scope="module")
def stepped():
    """The maps of the students that have taken their steps, and the methods that read no map."""
    return [], set()


@pytest.mark.parametrize("student", STUDENTS)
def test_a_student_takes_a_step_with_every_method(methods, stepped, monkeypatch, student):
    """A step depends on a student's maps alone; without maps, one student stands for all."""
    if student.startswith(("timm_", "vit_")):
        pytest.importorskip("timm")
    node = network_file(student)
    with torch.device("meta"):
        network = build_object(with_student(methods["ce"].config, node).student.network)
        classes, shapes = tap_shapes(
            TappedNetwork(network, **STATISTICS, taps=[*node.stages, node.hint]), SIDE
        )
    assert classes == K
    done, without_maps = stepped
    if (seen := [[*node.stages], node.hint, shapes]) in done:
        return
    monkeypatch.setattr(
        assemble, "student_network", lambda _, taps, execution: StandIn(shapes, taps, node.hint)
    )
    small = OmegaConf.load(STUDENTS["resnet8_thin"]).network
    for name, method in methods.items():
        if name in without_maps:
            continue
        if "peers" in method.config.loop:  # networks that would cost what the student does
            method.config.loop.peers = [small]
        module = method.module(node, method.kept)
        without_maps.update([] if module.student.taps else [name])
        before = deepcopy(module.student.state_dict())
        optimizer = module.make_optimizer(list(module.parameter_groups()))
        loss = torch.stack([each.value for each in module.break_down(batch()).components]).sum()
        loss.backward()
        optimizer.step()
        after = module.student.state_dict()
        assert torch.isfinite(loss), name
        assert all(torch.isfinite(value).all() for value in after.values()), name
        assert any(not torch.equal(after[key], value) for key, value in before.items()), name
    done.append(seen)


@pytest.mark.parametrize(("student", "method"), [("vgg8_quarter", "camkd"), ("shufflenet_v2", "dml")])
def test_a_pair_composes_to_its_student_and_its_method(composed, student, method):
    typed = composed(f"student={student}", f"method={method}")
    paired = with_student(composed(f"method={method}"), network_file(student))
    assert OmegaConf.to_container(typed, resolve=True) == OmegaConf.to_container(paired, resolve=True)


@pytest.mark.parametrize("method", METHODS)
def test_the_doctor_finds_the_expected_defects_of_a_pair(methods, method):
    chosen, student = methods[method], PAIRED.get(method, "resnet8_thin")
    expected = chosen.config.expected_defects
    found = check_step(chosen.module(network_file(student), chosen.live), batch())
    assert sorted(each.name for each in found.findings) == sorted(expected)
    assert bool(expected) is (method.endswith("_published") and method != "ebkd_published")
