"""What a recorded command says of its run."""

from amtml_pl.overrides import overrides_of, without_places


def test_options_and_their_values_are_no_overrides():
    command = "python -m amtml_pl.train --config-dir '/my conf' experiment=mine seed=1 -m hydra.run.dir=out"
    overrides = overrides_of(command)
    assert overrides == ["experiment=mine", "seed=1", "hydra.run.dir=out"]
    assert without_places([*overrides, "temperature=4"]) == ["temperature=4"]
