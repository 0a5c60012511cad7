"""The figure over what a sweep varies: teachers, temperature, coefficients."""

import pytest

from amtml_pl.comparison.estimates import Estimate
from sealing import seal_again
from study import BUDGET, figures, write_run

SQUARE = ((2, 1), (2, 10), (4, 1), (4, 10))  # temperatures and coefficients of kd
TEACHERS, TEMPERATURE, KD = "number of teachers", "temperature", "coefficient of kd"


def write_swept(folder, study, temperature, kd, base, seeds=(0, 1, 2), **more):
    for seed in seeds:
        write_run(
            folder / f"{study}-{temperature}-{kd}-{seed}", "small", seed, base + seed / 100,
            typed=f"method=amtml temperature={temperature} coef.kd={kd}", study=f"{study} {temperature} {kd}",
            temperature=float(temperature), loss={"ce": 1.0, "kd": float(kd)}, **more,
        )  # fmt: skip


def write_with_teachers(folder, study, teachers, base, experiment="small", **more):
    for seed in (0, 1, 2):
        write_run(folder / f"{study}-{len(teachers)}-{seed}", experiment, seed, base + seed / 100,
                  typed=f"method=avg teacher=[{','.join(teachers)}]", study=f"{study} {teachers}",
                  teachers={name: {} for name in teachers}, **more)  # fmt: skip


def sweeps(folder):
    """Return the means of each line by value, of each choice of the figure."""
    return {
        variant.label: {line["name"]: dict(zip(line["x"], line["y"], strict=True)) for line in variant.traces}
        for variant in figures(folder)["sweep"].variants
    }


def test_a_method_with_one_to_three_teachers_is_a_line(tmp_path):
    for count in (1, 2, 3):
        write_with_teachers(tmp_path, "s", "abc"[:count], 0.6 + count / 100)
    assert sweeps(tmp_path) == {TEACHERS: {"avg": pytest.approx({"1": 0.62, "2": 0.63, "3": 0.64})}}


def test_temperatures_and_coefficients_are_two_choices_with_a_line_per_other_value(tmp_path):
    for temperature, kd, accuracy in ((2, 1, 0.6), (4, 1, 0.7), (4, 10, 0.8), (2, 10, 0.9)):
        write_swept(tmp_path, "s", temperature, kd, accuracy, seeds=(0,))
    write_run(tmp_path / "default", "small", 0, 0.5, typed="method=amtml", temperature=8.0,
              loss={"ce": 1.0, "kd": 1.0})  # fmt: skip
    assert sweeps(tmp_path) == {
        TEMPERATURE: {
            "amtml (kd 1.0)": {"2": 0.6, "4": 0.7, "8": 0.5}, "amtml (kd 10.0)": {"2": 0.9, "4": 0.8},
        },
        KD: {
            "amtml (temperature 2.0)": {"1": 0.6, "10": 0.9},
            "amtml (temperature 4.0)": {"1": 0.7, "10": 0.8},
        },
    }  # fmt: skip


def test_several_choices_of_as_many_teachers_are_averaged_for_each_seed(tmp_path):
    for seed, values in enumerate(((0.6, 0.8), (0.7, 0.9))):
        for teacher, value in zip("ab", values, strict=True):
            write_run(tmp_path / f"{teacher}{seed}", "small", seed, value, study=teacher,
                      typed=f"method=avg teacher=[{teacher}]", teachers={teacher: {}})  # fmt: skip
        write_run(tmp_path / f"both{seed}", "small", seed, 0.9, study="both",
                  typed="method=avg teacher=[a,b]", teachers={"a": {}, "b": {}})  # fmt: skip
    (line,) = figures(tmp_path)["sweep"].variants[0].traces
    assert line["x"] == ["1", "2"]
    assert line["y"] == pytest.approx([0.75, 0.9])
    assert line["error_y"]["array"][0] == pytest.approx(Estimate.of([0.7, 0.8]).half_width)
    assert line["text"][0].endswith("(n = 2)")


def test_runs_of_an_edited_experiment_are_other_lines(tmp_path):
    for study, epochs, base in (("old", 15, 0.5), ("new", 30, 0.8)):
        budget = {**BUDGET, "epochs": epochs}
        for temperature, kd in SQUARE:
            write_swept(tmp_path, study, temperature, kd, base, budget=budget)
        for teachers in ("a", "ab"):
            write_with_teachers(tmp_path, study, teachers, base, budget=budget)
    old, new = (pytest.approx(dict.fromkeys("24", mean)) for mean in (0.51, 0.81))
    found = sweeps(tmp_path)
    assert found[TEMPERATURE] == {
        "amtml (kd 1.0, epochs 15)": old, "amtml (kd 1.0, epochs 30)": new,
        "amtml (kd 10.0, epochs 15)": old, "amtml (kd 10.0, epochs 30)": new,
    }  # fmt: skip
    assert {name: [*line] for name, line in found[TEACHERS].items()} == {
        "avg (epochs 15)": ["1", "2"], "avg (epochs 30)": ["1", "2"],
    }  # fmt: skip


def test_experiments_are_different_lines(tmp_path):
    for experiment, base in (("short", 0.5), ("long", 0.8)):
        for teachers in ("a", "ab"):
            write_with_teachers(tmp_path, experiment, teachers, base, experiment)
    assert sweeps(tmp_path)[TEACHERS] == {
        "avg (experiment short)": pytest.approx({"1": 0.51, "2": 0.51}),
        "avg (experiment long)": pytest.approx({"1": 0.81, "2": 0.81}),
    }


def test_runs_that_differ_in_the_configuration_alone_are_left_out_and_named(tmp_path):
    for prior, base in (("held_out", 0.5), ("uniform", 0.8)):
        for temperature in (2, 4):
            write_swept(tmp_path, prior, temperature, 1, base, seeds=(0,))
            folder = tmp_path / f"{prior}-{temperature}-1-0"
            (folder / "config.yaml").write_text(f"weighting: {{prior: {prior}}}\n")
            seal_again(folder)
    assert "sweep" not in figures(tmp_path)
    for temperature in (2, 4):
        write_swept(tmp_path, "sound", temperature, 10, 0.7, seeds=(0,))
    assert sweeps(tmp_path)[TEMPERATURE] == {"amtml (kd 10.0)": {"2": 0.7, "4": 0.7}}
    note = "The line amtml (kd 1.0) is left out, because its groups differ only in config.yaml."
    assert note in figures(tmp_path)["sweep"].description


def test_the_same_teachers_in_another_order_are_one_choice(tmp_path):
    write_with_teachers(tmp_path, "one", "a", 0.5)
    write_with_teachers(tmp_path, "both", "ba", 0.7)
    write_with_teachers(tmp_path, "three", "cba", 0.8)
    assert sweeps(tmp_path)[TEACHERS] == {"avg": pytest.approx({"1": 0.51, "2": 0.71, "3": 0.81})}


def test_a_sweep_of_one_coefficient_is_a_line_in_its_order_with_intervals(tmp_path):
    for kd, base in ((10, 0.7), (0.5, 0.6), (2, 0.65)):
        write_swept(tmp_path, "c", 4, kd, base, seeds=(0, 1))
    figure = figures(tmp_path)["sweep"]
    (variant,) = figure.variants
    (line,) = variant.traces
    assert (variant.label, line["x"]) == (KD, ["0.5", "2", "10"])
    assert line["y"] == pytest.approx([0.605, 0.655, 0.705])
    assert line["error_y"]["array"] == pytest.approx([Estimate.of([0.60, 0.61]).half_width] * 3)
    assert variant.layout["xaxis"]["categoryarray"] == line["x"]
    assert figure.description.endswith("Some intervals of two seeds are wider than the figure.")


def test_each_coefficient_that_was_swept_is_a_choice(tmp_path):
    for term, own in (("kd", 2.0), ("kd", 3.0), ("hint", 2.0), ("hint", 3.0)):
        write_run(tmp_path / f"{term}{own}", "small", 0, 0.6, typed=f"method={term} coef.{term}={own:g}",
                  temperature=4.0, loss={"kd": 1.0, "hint": 1.0, term: own})  # fmt: skip
    assert [*sweeps(tmp_path)] == ["coefficient of hint", KD]
    assert figures(tmp_path)["sweep"].choice == "swept setting"


def write_selections(folder, seeds, method="avg"):
    """Write runs with one teacher of two, each with its own seeds, and with both teachers."""
    for teacher, value in (("a", 0.6), ("b", 0.8), ("ab", 0.9)):
        for seed in seeds[teacher]:
            write_run(folder / f"{method}{teacher}{seed}", "small", seed, value + seed / 100,
                      study=f"{method} {teacher}",
                      typed=f"method={method} teacher=[{','.join(teacher)}]",
                      teachers={name: {} for name in teacher})  # fmt: skip


def test_choices_of_as_many_teachers_are_compared_over_the_seeds_that_they_share(tmp_path):
    write_selections(tmp_path, {"a": (0, 1), "b": (1, 2, 3), "ab": (0, 1, 2)})
    figure = figures(tmp_path)["sweep"]
    (line,) = figure.variants[0].traces
    assert line["y"] == pytest.approx([0.71, 0.91])  # one teacher: seed 1, the only one of both choices
    assert [text.rpartition("(")[2] for text in line["text"]] == ["n = 1)", "n = 3)"]
    assert figure.description.endswith(" avg: The selections of 1 teacher share 1 of 4 seeds.")


def test_a_line_that_is_not_drawn_for_its_seeds_has_a_note_below_the_others(tmp_path):
    write_selections(tmp_path, {"a": (0,), "b": (0,), "ab": (0,)})
    write_selections(tmp_path, {"a": (0,), "b": (1,), "ab": (0,)}, "okd")
    figure = figures(tmp_path)["sweep"]
    assert [line["name"] for line in figure.variants[0].traces] == ["avg"]
    assert " okd: The selections of 1 teacher share 0 of 2 seeds." in figure.description


def test_choices_without_a_shared_seed_are_no_point(tmp_path):
    write_selections(tmp_path, {"a": (0, 1), "b": (2, 3), "ab": (0, 1, 2)})
    assert "sweep" not in figures(tmp_path)  # a single point is no line
