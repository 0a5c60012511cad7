"""Of which loops it is known, without their training step, how they weigh the teachers."""

import pytest

from amtml_pl.errors import UserError
from amtml_pl.results.weighting import own_scheme
from amtml_pl.weighting.uniform import UniformWeighting


def test_a_loop_that_inherits_the_step_of_the_usual_one_is_asked_like_it(configure, monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", "tiny_runs.OwnStep")
    config = configure("experiment=digits", "method=avg", "loop._target_=tiny_runs.OwnStep")
    assert isinstance(own_scheme(config, ["resnet8"]), UniformWeighting)


def test_a_loop_with_weights_of_its_own_making_is_refused_by_its_name(configure):
    config = configure("experiment=digits", "method=avg", "method=mmkd")
    with pytest.raises(UserError, match="are made by MetaWeights, within its training step"):
        own_scheme(config, ["resnet8"])
