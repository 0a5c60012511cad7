"""Temperature of softened outputs."""

from __future__ import annotations

from amtml_pl.errors import UserError


def positive_temperature(temperature: float) -> float:
    """Return the temperature as a float, checked to be above 0.

    Raises:
        UserError: if it is not a number above 0.
    """
    if not temperature > 0:
        raise UserError(
            f"temperature is {temperature}; expected a number above 0 (softmax(z / T)).", fix="temperature=4"
        )
    return float(temperature)
