"""How a user's own loop weighs the teachers is known without its training step."""

from amtml_pl.results.weighting import own_scheme
from amtml_pl.weighting.uniform import UniformWeighting


def test_a_loop_that_inherits_the_step_of_the_usual_one_is_asked_like_it(configure, monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", "tiny_runs.OwnStep")
    config = configure("experiment=digits", "method=avg", "loop._target_=tiny_runs.OwnStep")
    assert isinstance(own_scheme(config, ["resnet8"]), UniformWeighting)
