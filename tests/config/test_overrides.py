"""The overrides of a recorded command."""

from amtml_pl.config.overrides import key_of, overrides_of, without_places


def test_options_and_their_values_are_no_overrides():
    command = "python -m amtml_pl.train --config-dir '/my conf' experiment=mine seed=1 -m hydra.run.dir=out"
    overrides = overrides_of(command)
    assert overrides == ["experiment=mine", "seed=1", "hydra.run.dir=out"]
    assert without_places([*overrides, "temperature=4"]) == ["temperature=4"]


def test_a_group_is_the_same_key_whatever_package_it_is_put_into():
    assert [key_of(word) for word in ("+optimizer@mine=sgd", "~coef.kd", "logger@x=csv")] == [
        "optimizer", "coef.kd", "logger",
    ]  # fmt: skip
    assert without_places(["logger@x=csv", "optimizer@mine=sgd"]) == ["optimizer@mine=sgd"]


def test_neither_how_a_run_works_nor_its_seed_names_a_group_of_the_report():
    others = [
        "experiment=x", "sweep=tune", "seed=1", "trainer=cpu", "launcher=joblib", "paths.data=/x",
        "traceback=true", "expected_defects=[a]", "hydra/launcher=ray", "cache.batch_size=3",
        "data.num_workers=2",
    ]  # fmt: skip
    labels = ["trainer.max_epochs=3", "teacher.resnet8.seed=1", "data.seed=1", "method=avg", "+mine.key=1"]
    assert without_places([*others, *labels]) == labels
