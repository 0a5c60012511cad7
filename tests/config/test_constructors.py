"""Arguments in a configuration fit the constructors that they name."""

import pytest
import torch

from amtml_pl.config.checks import check
from amtml_pl.config.constructors import accepting_functions
from amtml_pl.errors import UserError
from amtml_pl.weighting.uniform import UniformWeighting


class Base:
    def __init__(self, depth):
        pass


class Passes(Base):
    def __init__(self, *arguments, width=1, **named):
        super().__init__(*arguments, **named)


class Keeps(Base):
    def __init__(self, **named):
        super().__init__(named.pop("depth", 1))


@pytest.mark.parametrize(
    ("target", "functions", "any_name"), [(Base, 1, False), (Passes, 2, False), (Keeps, 1, True)]
)
def test_a_class_that_passes_its_arguments_on_takes_those_of_its_base(target, functions, any_name):
    chain, takes_any = accepting_functions(target)
    assert (len(chain), takes_any) == (functions, any_name)


@pytest.mark.parametrize("part", ["loop=dml", "loop=mmkd", "loop=mtkd_rl", "weighting=uniform"])
def test_an_unknown_argument_is_rejected_where_the_base_class_does_not_list_it(configure, part):
    group = part.partition("=")[0]
    with pytest.raises(UserError, match=rf"{group}\.meta_evry: .*no such argument"):
        check(configure("experiment=digits", part, f"+{group}.meta_evry=3"))


def test_arguments_are_checked_as_before_once_a_compiler_has_replaced_a_constructor(monkeypatch):
    def replaced(self, *arguments, **named):
        """As torch._dynamo replaces that of nn.Module."""

    monkeypatch.setattr(torch.nn.Module, "__init__", replaced)
    assert accepting_functions(UniformWeighting) == ([], False)


def test_arguments_that_a_loop_passes_to_its_base_are_checked(configure):
    check(configure("experiment=digits", "loop=mmkd", "+loop.seed=3"))
    with pytest.raises(UserError, match=r"loop\.temperature='hot': expected a number"):
        check(configure("experiment=digits", "loop=mmkd", "loop.temperature=hot"))


def test_a_timm_network_takes_any_argument(configure):
    check(configure("student=timm_resnet18", "+student.network.network.drop_rate=0.1"))


def test_gradients_cannot_be_clipped_where_a_method_steps_its_optimisers_itself(configure):
    check(configure("experiment=digits_amtml", "trainer.gradient_clip_val=1.0"))
    with pytest.raises(
        UserError, match=r"gradient_clip_val=1\.0 is not supported: the loop .*MutualLearning steps"
    ):
        check(configure("experiment=digits", "method=dml", "trainer.gradient_clip_val=1.0"))
    with pytest.raises(UserError, match=r"accumulate_grad_batches=0 is .*expected 1"):
        check(configure("experiment=digits", "method=dml", "+trainer.accumulate_grad_batches=0"))


def test_gradients_can_be_clipped_in_a_loop_that_leaves_its_step_to_lightning(configure, monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", "tiny_runs.OwnStep")
    own = ("experiment=digits_amtml", "loop._target_=tiny_runs.OwnStep")
    check(configure(*own, "trainer.gradient_clip_val=1.0", "+trainer.accumulate_grad_batches=2"))
