"""The schema declares which keys reach a teacher's recipe."""

from amtml_pl.config.key_roles import handed_to_recipes


def test_the_keys_that_a_recipe_takes_from_the_run_are_declared():
    taken = {"paths", "dataset", "prepare", "traceback", "debug"}
    assert {*handed_to_recipes()} == taken | {
        f"data.{key}"
        for key in ("seed", "val_size", "train_size", "clip_train_size", "num_workers", "device")
    }
