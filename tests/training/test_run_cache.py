"""The folders of a run's teacher outputs follow all that changes them, and nothing else."""

import json
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from amtml_pl.data.packing import pack
from amtml_pl.training.assemble import data_module
from amtml_pl.training.plan_table import cache_step
from amtml_pl.training.run_cache import RunCache
from amtml_pl.training.settings import settings_of
from records import EXAMINED

pytestmark = pytest.mark.slow

EXPERIMENT = (
    "experiment=digits", "method=amtml_adapter", "trainer=cpu", "trainer.max_epochs=3",
    "student=resnet8_thin", "data.train_size=100", "data.val_size=60",
)  # fmt: skip


@pytest.fixture
def cache(configure, tmp_path):
    """Return the cache of the experiment with overrides; its teachers have random weights."""

    def made(*overrides, selected=("resnet8", "vgg8_quarter"), split="train", digest=None):
        own = [f"teacher.{name}.weights.path={tmp_path}/{name}.safetensors" for name in selected]
        config = configure(*EXPERIMENT, f"teacher=[{','.join(selected)}]", *own, *overrides)
        settings = settings_of(config)
        for teacher in settings.selected:
            if not (file := tmp_path / f"{teacher.name}.safetensors").exists():
                save_file(teacher.fresh().network.network.state_dict(), file)
        source, teachers = settings.dataset.source.build(), settings.teachers()
        packed = pack(source, settings.dataset.packed_root)
        data = data_module(settings, replace(packed, digest=digest or packed.digest))
        return RunCache(settings, teachers, data, {}, split)

    return made


def begun(cache):
    """Write the manifests of a cache, as a build does first."""
    for store in cache.stores:
        store.begin((10,) if store.tensor == "logits" else (4, 2, 2), EXAMINED, {})
    return cache


def folders(cache):
    return {(store.teacher, store.tensor): store.folder for store in cache.stores}


def test_there_is_a_store_for_each_teacher_and_tensor_that_a_term_reads(cache):
    assert list(folders(cache())) == [
        ("resnet8", "logits"), ("resnet8", "layer3"), ("vgg8_quarter", "logits"), ("vgg8_quarter", "stage5"),
    ]  # fmt: skip
    assert list(folders(cache("loss=[ce,kd]", "weighting=uniform"))) == [
        ("resnet8", "logits"), ("vgg8_quarter", "logits"),
    ]  # fmt: skip


ALL = {("resnet8", "logits"), ("resnet8", "layer3"), ("vgg8_quarter", "logits"), ("vgg8_quarter", "stage5")}
HINTS = {("resnet8", "layer3"), ("vgg8_quarter", "stage5")}
LOGITS = ALL - HINTS
RESNET8 = {("resnet8", "logits"), ("resnet8", "layer3")}
CROP = "data.augment.operations.0"

DECIDES = {
    "data.seed=1": (ALL, "augment.seed (got 1, stored 0)"),
    "data.val_size=50": (ALL, "split.rows (got "),
    "data.train_size=90": (ALL, "split.size (got 90, stored 100)"),
    f"{CROP}.padding=2": (ALL, "augment.operations[0].padding (got 2, stored 4)"),
    f"{CROP}.flip=true": (ALL, "augment.operations[0].flip (got True, stored False)"),
    "augment=none": (ALL, "augment.operations (got "),
    "cache.precision=bfloat16": (ALL, "cache.precision (got 'bfloat16', stored 'float32')"),
    "cache.logits=float32": (LOGITS, "storage (got 'float32', stored 'float16')"),
    "cache.hints=int8": (HINTS, "storage (got 'int8', stored 'float16')"),
    "hint_pool=2": (HINTS, "tensor.pool (got 2, stored None)"),
    "teacher.resnet8.mean=[0.5,0.5,0.5]": (RESNET8, "teacher.mean[0] (got 0.5, stored 0.3"),
    "teacher.resnet8.std=[0.5,0.5,0.5]": (RESNET8, "teacher.std[0] (got 0.5, stored 0.3"),
    "teacher.resnet8.input_size=48": (RESNET8, "teacher.input_size (got 48, stored None)"),
    "teacher.resnet8.class_map=[1,0,2,3,4,5,6,7,8,9]": (RESNET8, "teacher.class_map (got [1, 0, "),
}


@pytest.mark.parametrize("override", DECIDES)
def test_a_key_that_changes_the_outputs_leads_to_other_stores_and_is_named_with_both_values(cache, override):
    expected, words = DECIDES[override]
    first, second = begun(cache()), cache(override)
    moved = {key for key, folder in folders(second).items() if folder != folders(first)[key]}
    assert moved == expected
    assert second.missing() == second.views
    assert words in second.nearest()
    assert words in cache_step(second, len(second.missing()), None, None).state


def test_a_pool_of_last_maps_leaves_the_stores_of_second_stages(cache):
    stages = ("loss=[ce,kd,regression_fitnet]", "weighting=uniform")
    assert folders(cache(*stages)) == folders(cache(*stages, "hint_pool=2"))


def test_other_weights_of_a_teacher_lead_to_other_stores(cache, tmp_path):
    first = begun(cache())
    before = folders(first)
    file = tmp_path / "resnet8.safetensors"
    save_file({key: value + 1e-3 for key, value in load_file(file).items()}, file)
    second = cache()
    assert {key for key, folder in folders(second).items() if folder != before[key]} == RESNET8
    old, new = (each.stores[0].fingerprint["teacher"]["weights"]["sha256"] for each in (first, second))
    assert f"teacher.weights.sha256 (got {new!r}, stored {old!r})" in second.nearest()


def test_other_images_lead_to_other_stores(cache):
    first = begun(cache())
    second = cache(digest="another")
    assert not set(folders(first).values()) & set(folders(second).values())
    assert f"data.digest (got 'another', stored {first.data.digest!r})" in second.nearest()


def test_another_hint_adds_a_store_and_leaves_the_others(cache):
    first, second = folders(cache()), folders(cache("teacher.resnet8.hint=layer2"))
    assert second.keys() - first.keys() == {("resnet8", "layer2")}
    assert all(folder == first[key] for key, folder in second.items() if key in first)


def test_the_order_and_number_of_the_teachers_change_no_store(cache):
    both = folders(cache())
    for chosen in (["vgg8_quarter", "resnet8"], ["resnet8"]):
        found = folders(cache(selected=chosen))
        assert list(dict.fromkeys(teacher for teacher, _ in found)) == chosen
        assert all(folder == both[key] for key, folder in found.items())


IRRELEVANT = (
    "seed=1", "temperature=2", "data.batch_size=64", "data.num_workers=2", "data.views=2",
    "trainer.max_epochs=5", "execution=eager", "cache.compile=true", "cache.channels_last=false",
    "cache.batch_size=7", "cache.placement=resident", "cache.probe=0", "student=resnet14", "coef.kd=2",
    "trainer.accelerator=auto", "teacher.resnet8.min_accuracy=0.1",
)  # fmt: skip


def test_keys_that_leave_the_outputs_alone_find_the_same_stores(cache):
    assert folders(cache()) == folders(cache(*IRRELEVANT))


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_has_the_logits_of_images_without_augmentation(cache, split):
    first = cache(split=split)
    other = cache(f"{CROP}.padding=2", "data.views=1", "hint_pool=2", split=split)
    assert first.views == [0]
    assert folders(first).keys() == LOGITS
    assert folders(first) == folders(other)
    assert not set(folders(first).values()) & set(folders(cache()).values())


def test_the_views_are_those_that_the_epochs_train_on(cache):
    assert cache().views == [1, 2, 3]
    assert cache("data.views=2").views == [1, 2]
    assert cache("data.views=2", "trainer.max_epochs=1").views == [1]


def test_a_fingerprint_has_no_path_host_or_time(cache, tmp_path):
    for store in cache().stores:
        text = json.dumps(store.fingerprint)
        assert str(tmp_path) not in text
        assert json.loads(text) == store.fingerprint
