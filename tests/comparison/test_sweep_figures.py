"""Figures over what a sweep varies: teachers, temperature, coefficients; and what they keep apart."""

import pytest

from amtml_pl.comparison.estimates import Estimate
from sealing import seal_again
from study import BUDGET, figures, write_run


def test_a_method_with_one_to_three_teachers_is_a_line(tmp_path):
    for count in (1, 2, 3):
        write_taught(tmp_path, "s", "abc"[:count], 0.6 + count / 100)
    (line,) = figures(tmp_path)["teachers"].variants[0].traces
    assert (line["name"], line["x"]) == ("avg", [1, 2, 3])
    assert line["y"] == sorted(line["y"])


def test_temperatures_and_coefficients_are_a_map_with_gaps(tmp_path):
    for temperature, kd, accuracy in ((2, 1, 0.6), (4, 1, 0.7), (4, 10, 0.8)):
        write_swept(tmp_path, "s", temperature, kd, accuracy, seeds=(0,))
    (trace,) = figures(tmp_path)["temperature"].variants[0].traces
    assert (trace["x"], trace["y"]) == (["2", "4"], ["kd 1", "kd 10"])
    assert trace["z"] == [[0.6, 0.7], [None, 0.8]]


def test_several_choices_of_as_many_teachers_are_no_repetitions(tmp_path):
    """Their mean is taken for each seed: the interval is one over seeds."""
    for seed, values in enumerate(((0.6, 0.8), (0.7, 0.9))):
        for teacher, value in zip("ab", values, strict=True):
            write_run(tmp_path / f"{teacher}{seed}", "small", seed, value, study=teacher,
                      told=f"method=avg teacher=[{teacher}]", teachers={teacher: {}})  # fmt: skip
        write_run(tmp_path / f"both{seed}", "small", seed, 0.9, study="both",
                  told="method=avg teacher=[a,b]", teachers={"a": {}, "b": {}})  # fmt: skip
    (line,) = figures(tmp_path)["teachers"].variants[0].traces
    assert line["x"] == [1, 2]
    assert line["y"] == pytest.approx([0.75, 0.9])
    assert line["error_y"]["array"][0] == pytest.approx(Estimate.of([0.7, 0.8]).half_width)
    assert line["text"][0].endswith("(n = 2, 2 choices)")


SQUARE = ((2, 1), (2, 10), (4, 1), (4, 10))  # temperatures and coefficients of kd


def write_swept(folder, study, temperature, kd, base, seeds=(0, 1, 2), **more):
    for seed in seeds:
        write_run(
            folder / f"{study}-{temperature}-{kd}-{seed}", "small", seed, base + seed / 100,
            told=f"method=amtml temperature={temperature} coef.kd={kd}", study=f"{study} {temperature} {kd}",
            temperature=float(temperature), loss={"ce": 1.0, "kd": float(kd)}, **more,
        )  # fmt: skip


def write_taught(folder, study, teachers, base, experiment="small", **more):
    for seed in (0, 1, 2):
        write_run(folder / f"{study}-{len(teachers)}-{seed}", experiment, seed, base + seed / 100,
                  told=f"method=avg teacher=[{','.join(teachers)}]", study=f"{study} {teachers}",
                  teachers={name: {} for name in teachers}, **more)  # fmt: skip


def test_runs_of_an_edited_experiment_are_another_map_and_another_line(tmp_path):
    for study, epochs, base in (("old", 15, 0.5), ("new", 30, 0.8)):
        budget = {**BUDGET, "epochs": epochs}
        for temperature, kd in SQUARE:
            write_swept(tmp_path, study, temperature, kd, base, budget=budget)
        for teachers in ("a", "ab"):
            write_taught(tmp_path, study, teachers, base, budget=budget)
    found = figures(tmp_path)
    maps = found["temperature"].variants
    cells = {own.label: [cell for row in own.traces[0]["z"] for cell in row] for own in maps}
    assert cells == {
        "amtml (epochs 15)": pytest.approx([0.51] * 4), "amtml (epochs 30)": pytest.approx([0.81] * 4),
    }  # fmt: skip
    lines = {line["name"]: line for line in found["teachers"].variants[0].traces}
    assert lines["avg (epochs 15)"]["y"] == pytest.approx([0.51, 0.51])
    assert lines["avg (epochs 30)"]["y"] == pytest.approx([0.81, 0.81])
    assert all("choices" not in text for line in lines.values() for text in line["text"])


def test_experiments_are_lines_of_their_own(tmp_path):
    for experiment, base in (("short", 0.5), ("long", 0.8)):
        for teachers in ("a", "ab"):
            write_taught(tmp_path, experiment, teachers, base, experiment)
    lines = figures(tmp_path)["teachers"].variants[0].traces
    assert {line["name"]: line["y"] for line in lines} == {
        "short avg": pytest.approx([0.51, 0.51]), "long avg": pytest.approx([0.81, 0.81]),
    }  # fmt: skip


def test_runs_that_differ_in_the_configuration_alone_are_never_pooled(tmp_path):
    for prior, base in (("held_out", 0.5), ("uniform", 0.8)):
        for temperature, kd in SQUARE:
            write_swept(tmp_path, prior, temperature, kd, base, seeds=(0,))
            folder = tmp_path / f"{prior}-{temperature}-{kd}-0"
            (folder / "config.yaml").write_text(
                f"temperature: {temperature}\ncoef: {{kd: {kd}}}\npaths: {{cache: {folder}}}\n"
                f"weighting: {{prior: {prior}}}\n"
            )
            seal_again(folder)
    cells = {v.label: v.traces[0]["z"] for v in figures(tmp_path)["temperature"].variants}
    assert cells == {"amtml (prior held_out)": [[0.5] * 2] * 2, "amtml (prior uniform)": [[0.8] * 2] * 2}


def test_runs_of_equal_commands_are_numbered_and_never_pooled(tmp_path):
    for study, base in (("one", 0.5), ("other", 0.8)):
        for temperature, kd in SQUARE:
            write_swept(tmp_path, study, temperature, kd, base, seeds=(0,))
    cells = {v.label: v.traces[0]["z"] for v in figures(tmp_path)["temperature"].variants}
    assert cells == {"amtml #1": [[0.8] * 2] * 2, "amtml #2": [[0.5] * 2] * 2}


def test_the_same_teachers_in_another_order_are_no_second_choice(tmp_path):
    write_taught(tmp_path, "one", "a", 0.5)
    for number, teachers in enumerate(("ab", "ba")):
        write_taught(tmp_path, f"both{number}", teachers, 0.6 + number / 10)
    (line,) = figures(tmp_path)["teachers"].variants[0].traces
    assert line["y"] == pytest.approx([0.51, 0.71])
    assert all("choices" not in text for text in line["text"])


def test_a_sweep_of_temperatures_is_a_line_with_intervals(tmp_path):
    for temperature, base in ((2, 0.6), (4, 0.7), (8, 0.65)):
        write_swept(tmp_path, "t", temperature, 1, base)
    found = figures(tmp_path)
    assert "temperature" not in found
    (line,) = found["temperatures"].variants[0].traces
    assert (line["name"], line["x"]) == ("amtml", [2, 4, 8])
    assert line["y"] == pytest.approx([0.61, 0.71, 0.66])
    assert line["error_y"]["array"] == pytest.approx([Estimate.of([0.60, 0.61, 0.62]).half_width] * 3)


def test_a_sweep_of_one_coefficient_is_a_line_in_its_order(tmp_path):
    for kd, base in ((10, 0.7), (0.5, 0.6), (2, 0.65)):
        write_swept(tmp_path, "c", 4, kd, base, seeds=(0, 1))
    (variant,) = figures(tmp_path)["coefficients"].variants
    (line,) = variant.traces
    assert (variant.label, line["x"]) == ("kd", ["kd 0.5", "kd 2", "kd 10"])
    assert line["y"] == pytest.approx([0.605, 0.655, 0.705])
    assert variant.layout["xaxis"]["categoryarray"] == line["x"]
    assert "Intervals of two seeds go beyond the frame." in figures(tmp_path)["coefficients"].description


def test_sweeps_of_different_coefficients_are_chosen_between(tmp_path):
    for term, own in (("kd", 2.0), ("kd", 3.0), ("hint", 2.0), ("hint", 3.0)):
        write_run(tmp_path / f"{term}{own}", "small", 0, 0.6, told=f"method={term} coef.{term}={own:g}",
                  temperature=4.0, loss={"kd": 1.0, "hint": 1.0, term: own})  # fmt: skip
    found = figures(tmp_path)
    assert [variant.label for variant in found["coefficients"].variants] == ["hint", "kd"]
    assert found["coefficients"].choice == "loss term"
