"""Golden values are compared in float64, with all their digits."""

import pytest
import torch

from golden_steps import assert_golden


def test_a_stored_scalar_is_not_rounded_to_float32():
    large = 1234.56789
    assert_golden(torch.tensor(large, dtype=torch.float64), large)
    with pytest.raises(AssertionError, match="not close"):
        assert_golden(torch.tensor(large + 2e-6, dtype=torch.float64), large)


def test_a_value_computed_in_float32_is_refused():
    with pytest.raises(AssertionError, match="dtype"):
        assert_golden(torch.tensor(1.0), 1.0)
