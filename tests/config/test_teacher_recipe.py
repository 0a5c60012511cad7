"""A teacher without weights is trained by its recipe, on the data of the run."""

import pytest

from amtml_pl.config.checks import check
from amtml_pl.config.overrides import overrides_of
from amtml_pl.config.teacher_recipe import Recipe, recipe
from amtml_pl.errors import UserError
from amtml_pl.runs.identity import run_hash
from amtml_pl.training.settings import settings_of

FLOWERS = ("dataset.source.folder=flowers", "dataset.num_classes=5")


@pytest.mark.parametrize(
    ("data", "fitting"),
    [
        (
            ("dataset=one_folder", "dataset.source.folder=flowers", "dataset.num_classes=5"),
            "own_images_teacher",
        ),
        (
            ("dataset=image_folder", "dataset.source.folder=flowers", "dataset.num_classes=5"),
            "own_images_teacher",
        ),
        (("dataset=cifar100",), "cifar100_teacher"),
    ],
    ids=["one-folder", "image-folder", "cifar100"],
)
def test_a_teacher_without_recipe_is_offered_the_one_of_the_data(configure, data, fitting):
    config = configure("teacher=[resnet8]", *data)
    with pytest.raises(UserError, match=f"or teacher_recipe={fitting}$"):
        recipe(config, "resnet8")


def test_only_the_data_of_the_run_reaches_a_teachers_recipe(configure):
    overrides = (
        "seed=7", "trainer.max_epochs=99", "coef.ce=9", "loss=[ce,kd]", "optimizer.lr=7", "temperature=9",
        "data.batch_size=7", "data.views=3", "scheduler=multistep", "student=resnet20", "weighting=uniform",
    )  # fmt: skip
    plain = recipe(configure("experiment=digits_amtml"), "resnet8")
    changed = recipe(configure("experiment=digits_amtml", *overrides), "resnet8")
    assert run_hash(changed) == run_hash(plain)


def test_the_data_of_the_run_reaches_a_teachers_recipe(configure):
    run = configure("experiment=digits_amtml", "data.seed=4", "data.train_size=200", "data.val_size=50")
    own = recipe(run, "resnet8")
    assert (own.data.seed, own.data.train_size, own.data.val_size) == (4, 200, 50)
    assert own.student.network == run.teacher.resnet8.network
    assert own.role == "teacher"


def test_a_recipe_is_the_configuration_of_its_command(configure):
    run = configure("experiment=digits_amtml", "teacher.resnet8.seed=2")
    typed = configure("experiment=digits_teacher", "student=resnet8", "seed=2")
    assert run_hash(recipe(run, "resnet8")) == run_hash(typed)


def test_the_command_of_a_recipe_gives_the_values_that_a_choice_of_the_run_requires(configure):
    own = ("dataset.source.folder=photos", "dataset.num_classes=3")
    run = configure("dataset=one_folder", *own, "teacher=[resnet8]", "teacher_recipe=digits_teacher")
    run.teacher.resnet8.recipe_overrides = ["dataset=one_folder"]  # as the choice of a command
    typed = overrides_of(Recipe(run, "resnet8").command())
    assert {*own} <= {*typed}
    assert run_hash(configure(*typed)) == run_hash(recipe(run, "resnet8"))


@pytest.mark.parametrize(("seed", "expected"), [(0, 5), (1, 7), (4, 5), (9, 7)])
def test_the_runs_of_a_study_share_a_few_sets_of_teachers(configure, seed, expected):
    run = configure("experiment=digits_amtml", f"seed={seed}", "teacher_seeds=[5,7]")
    assert {recipe(run, teacher).seed for teacher in run.teacher} == {expected}


def test_runs_with_other_teachers_belong_to_one_study_if_their_seed_decides(configure):
    def study(*overrides):
        return settings_of(configure("experiment=digits_amtml", *overrides)).study()

    assert study("seed=0", "teacher_seeds=[0,1]") == study("seed=1", "teacher_seeds=[0,1]")
    assert (
        len({study("seed=0", *given) for given in ((), ["teacher_seeds=[1]"], ["teacher_seeds=[0,1]"])}) == 3
    )


@pytest.mark.parametrize("given", ["[]", "3", "null", "[a]", "[-1]", "word"])
def test_seeds_that_are_no_list_of_seeds_are_one_message(configure, given):
    message = r"teacher_seeds(=.*:| is missing:) expected seeds in a list, e\.g\. \[0,1\]"
    with pytest.raises(UserError, match=message):
        check(configure("experiment=digits_amtml", f"teacher_seeds={given}"))


def test_a_teacher_is_trained_with_its_own_input_size(configure):
    run = configure("experiment=digits_amtml", "teacher.resnet8.input_size=48")
    typed = configure("experiment=digits_teacher", "student=resnet8", "student.input_size=48")
    assert run_hash(recipe(run, "resnet8")) == run_hash(typed)
    assert recipe(run, "wrn_10_1").student.input_size is None


def test_overrides_of_a_single_teachers_recipe_are_its_own(configure):
    run = configure("experiment=digits_amtml", "teacher.resnet8.recipe_overrides=['optimizer.lr=0.3']")
    assert recipe(run, "resnet8").optimizer.lr == 0.3
    assert recipe(run, "wrn_10_1").optimizer.lr == 0.05


def test_a_teacher_without_weights_and_recipe_is_reported_with_a_fix(configure):
    message = r"needs a file with network weights or a recipe(.|\n)*teacher.resnet8.weights.path=FILE"
    with pytest.raises(UserError, match=message):
        recipe(configure("teacher=[resnet8]"), "resnet8")
    with pytest.raises(UserError, match="cannot be composed"):
        recipe(configure("teacher=[resnet8]", "teacher_recipe=nothing"), "resnet8")
