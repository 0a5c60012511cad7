"""Every network of timm is a student and a teacher by its name alone."""

import pytest
import torch

from amtml_pl.config.allowed_targets import refuse_foreign_targets
from amtml_pl.config.build import build_object, plain_values
from amtml_pl.config.checks import check
from amtml_pl.config.override_errors import command_line_mistakes
from amtml_pl.config.teacher_recipe import recipe
from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork, tap_shapes
from amtml_pl.runs.identity import run_folder, run_hash
from amtml_pl.training.settings import settings_of
from tiny_runs import CE

pytest.importorskip("timm")
SWIN = "swin_tiny_patch4_window7_224"
STAGES = {
    "convnext_atto": [f"stages.{i}" for i in range(4)],
    SWIN: [f"layers.{i}" for i in range(4)],
    "vit_tiny_patch16_224": [f"blocks.{i}" for i in range(12)],
    "twins_svt_small": [],  # timm's feature_info names modules that it does not have
    "no_such_network": [],
}


@pytest.mark.parametrize("name", STAGES)
def test_a_student_of_timm_has_the_taps_that_timm_lists(configure, name):
    student = configure(f"student=timm/{name}").student
    assert (student.network.model_name, student.network.pretrained) == (name, False)
    assert student.stages == STAGES[name]
    assert student.hint == (STAGES[name] or [None])[-1]


def test_several_teachers_of_timm_are_named_after_their_models(configure):
    names = f"convnext_atto,timm/{SWIN}.ms_in1k,resnet8"
    config = configure(
        "experiment=digits", f"teacher=[timm/{names}]", "teacher.convnext_atto.pretrained=true"
    )
    assert list(config.teacher) == ["convnext_atto", f"{SWIN}_ms_in1k", "resnet8"]
    assert config.teacher.convnext_atto.network.pretrained is True
    assert config.teacher[f"{SWIN}_ms_in1k"].network.pretrained is False
    assert config.teacher[f"{SWIN}_ms_in1k"].network.model_name == f"{SWIN}.ms_in1k"
    check(config)


def test_a_recipe_of_a_teacher_of_timm_is_the_configuration_of_its_command(configure, tmp_path):
    own = recipe(configure("experiment=digits", "teacher=[timm/convnext_atto]"), "convnext_atto")
    typed = configure("experiment=digits_teacher", "student=timm/convnext_atto")
    assert own.student.network.pretrained is False
    assert run_hash(own) == run_hash(typed)
    places = [run_folder(own, None, label) for label in ("convnext_atto", "timm/convnext_atto")]
    assert places[0] == places[1]
    assert places[0].name.startswith("convnext_atto-")


def test_an_unknown_name_is_reported_with_similar_ones(configure):
    assert command_line_mistakes(["teacher=[timm/vit_tny_patch16_224]"], "train") == []
    config = configure("student=timm/vit_tny_patch16_224")
    similar = "no model_name='vit_tny_patch16_224'; similar names: vit_tiny_patch16_224, "
    with pytest.raises(UserError, match=similar):
        refuse_foreign_targets(plain_values(config.student.network))
    tagged = {"_target_": "timm.create_model", "model_name": "vit_tiny_patch16_224.augreg"}
    with pytest.raises(UserError, match=r"similar names: .*vit_tiny_patch16_224\.augreg_in21k"):
        refuse_foreign_targets(tagged)


def test_weights_that_cannot_be_downloaded_are_one_message(configure, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    config = configure(
        "experiment=digits", "teacher=[timm/convnext_atto]", "teacher.convnext_atto.pretrained=true"
    )
    with pytest.raises(
        UserError, match=r"(?s)timm.create_model cannot be built.*Fix: connect .*weights.path=FILE"
    ):
        build_object(config.teacher.convnext_atto.network)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(("tokens", "side"), [("patches", 8), ("class", 1), ("mean", 1)])
def test_vit_tiny_has_the_same_maps_at_both_sizes(configure, size, tokens, side):
    """As a student and as a teacher, which reads its tokens by the same key."""
    overrides = (f"student.tokens={tokens}", f"teacher.vit_tiny.tokens={tokens}", "loss=[ce,regression]")
    config = configure(
        "experiment=digits",
        "student=vit_tiny",
        "teacher=[vit_tiny]",
        f"dataset.image_size={size}",
        *overrides,
    )
    settings = settings_of(config)
    with torch.device("meta"):
        student = TappedNetwork(
            settings.method.student.build(), mean=[0.5] * 3, std=[0.5] * 3, taps=config.student.stages,
            reading=settings.method.reading,
        )  # fmt: skip
        teacher = settings.teachers()[0].fresh()
    assert set(tap_shapes(student, size)[1].values()) == {(192, side, side)}
    assert teacher.hint_shapes(size) == {"vit_tiny/blocks.11": (192, side, side)}


def test_a_tap_of_other_tokens_is_another_run_and_not_another_teacher(configure):
    base = ("experiment=digits", "student=vit_tiny", "teacher=[vit_tiny]")
    plain = configure(*base)
    for key in ("student.tokens", "teacher.vit_tiny.tokens"):
        changed = configure(*base, f"{key}=mean")
        assert run_hash(changed) != run_hash(plain)
        assert run_hash(recipe(changed, "vit_tiny")) == run_hash(recipe(plain, "vit_tiny"))


SMALL_VIT = (
    "+{}.network.depth=2", "+{}.network.embed_dim=48", "{}.stages=[blocks.0,blocks.1]", "{}.hint=blocks.1"
)  # fmt: skip
SMALL_SWIN = ("img_size=32", "window_size=4", "depths=[1,1,1,1]", "embed_dim=24")


@pytest.mark.slow
def test_a_student_learns_the_patches_of_a_transformer_and_of_swin_from_the_cache(run):
    """In channels-last layout; only the hints of other tokens are computed again."""
    short = "recipe_overrides=['trainer.max_epochs=1','logger=[]']"
    job = (
        "experiment=digits", *CE, "method=fitnet_mkd", "student=vit_tiny",
        f"teacher=[vit_tiny,timm/{SWIN}]", "execution.channels_last=true",
        *(f"teacher.{name}.{short}" for name in ("vit_tiny", SWIN)),
        *(word.format(node) for node in ("student", "teacher.vit_tiny") for word in SMALL_VIT),
        f"teacher.{SWIN}.input_size=32",
        *(f"+teacher.{SWIN}.network.{word}" for word in SMALL_SWIN),
    )  # fmt: skip
    first, _ = run(*job)
    assert first.execution.channels_last
    assert set(first.cache.teacher_passes) == {"vit_tiny", SWIN}
    again, _ = run(*job, "seed=1", name="again")
    assert again.cache.teacher_passes == {}
    other, _ = run(*job, "teacher.vit_tiny.tokens=mean", name="other")
    assert set(other.cache.teacher_passes) == {"vit_tiny"}
    assert len(set(first.cache.stores) - set(other.cache.stores)) == 1
