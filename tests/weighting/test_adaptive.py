"""AMTML's adapter."""

from amtml_pl.weighting.adaptive import AdaptiveWeighting, latent_factor_weights
from golden_steps import assert_golden
from weighting.schemes import step_and_weights


def test_weights_of_the_adapter_from_max_and_from_average_pooled_features(golden):
    given, expected = golden("adapter_weights")
    theta, mixing = given["theta"].double(), given["W"].double()
    features = given["feature_map"].double()
    assert_golden(features.amax(dim=(2, 3)), expected["beta"])
    assert_golden(latent_factor_weights(features.amax(dim=(2, 3)), theta, mixing), expected["weights"])
    assert_golden(features.mean(dim=(2, 3)), expected["beta_avg"])
    assert_golden(latent_factor_weights(features.mean(dim=(2, 3)), theta, mixing), expected["weights_avg"])
    assert_golden(theta.square().sum() + mixing.square().sum(), expected["l2"])


def test_the_adapter_learns_and_its_gradient_stops_at_the_students_features():
    scheme = AdaptiveWeighting("last", "uniform", lr=None)
    step, weights = step_and_weights(scheme)
    weights[:, 0].sum().backward()
    assert step.student.features["last"].grad is None
    assert all(factor.grad.abs().sum() > 0 for factor in (scheme.theta, scheme.mixing))


def test_the_adapter_does_not_start_collapsed():
    _, weights = step_and_weights(AdaptiveWeighting("last", "uniform", lr=None), B=64, D=64)
    assert (weights.amax(dim=1) > 0.95).float().mean() < 0.5
    assert weights.std() > 0.01
