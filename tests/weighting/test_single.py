"""One teacher, by name or accuracy."""

from dataclasses import replace

import pytest

from amtml_pl.errors import UserError
from amtml_pl.weighting.single import SingleTeacherWeighting
from steps import make_step
from weighting.schemes import SHAPES, weigh


def test_the_best_teacher_has_all_the_weight_and_of_equals_the_first():
    scheme = SingleTeacherWeighting()
    scheme.build(SHAPES)
    with pytest.raises(RuntimeError, match="needs set_teacher_accuracy"):
        weigh(scheme, make_step())
    scheme.set_teacher_accuracy({"t0": 0.5, "t1": 0.7, "t2": 0.7})
    assert weigh(scheme, make_step()).tolist() == [[0, 1, 0]] * 6


def test_the_best_of_one_teacher_needs_no_accuracy():
    alone = SingleTeacherWeighting()
    alone.build(replace(SHAPES, teachers=("t0",)))
    alone.set_teacher_accuracy({})
    assert not alone.needs_accuracy
    assert alone.position == 0
    several = SingleTeacherWeighting()
    several.build(SHAPES)
    assert several.needs_accuracy


def test_a_teacher_is_chosen_by_name_and_a_wrong_name_is_refused():
    scheme = SingleTeacherWeighting("t2")
    scheme.build(SHAPES)
    scheme.set_teacher_accuracy({"t0": 0.9, "t1": 0.7, "t2": 0.1})
    assert weigh(scheme, make_step())[0].tolist() == [0, 0, 1]
    with pytest.raises(UserError, match=r"weighting\.teacher is unknown .got tt2.*\n.*weighting\.teacher=t2"):
        SingleTeacherWeighting("tt2").build(SHAPES)
