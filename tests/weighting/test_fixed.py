"""Given weights."""

import pytest
import torch

from amtml_pl.errors import UserError
from amtml_pl.weighting.fixed import FixedWeighting
from steps import make_step
from weighting.schemes import SHAPES, weigh


def test_given_weights_are_scaled_and_put_in_the_order_of_the_teachers():
    scheme = FixedWeighting({"t2": 2, "t0": 1, "t1": 1})
    scheme.build(SHAPES)
    torch.testing.assert_close(weigh(scheme, make_step())[0], torch.tensor([0.25, 0.25, 0.5]))
    assert scheme.state_dict() == {}


@pytest.mark.parametrize(
    ("weights", "words"),
    [({"t0": 1, "tt": 1}, r"got \['t0', 'tt'\], expected \['t0', 't1', 't2'\]"),
     ({"t0": -1, "t1": 1, "t2": 1}, "expected 0 or more"), ({"t0": 0, "t1": 0, "t2": 0}, "not all 0")],
    ids=["wrong_name", "negative", "all_zero"],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_with_an_example(weights, words):
    with pytest.raises(UserError, match=words + r".*\n.*weighting\.weights=\{t0:1,t1:1,t2:1\}"):
        FixedWeighting(weights).build(SHAPES)
