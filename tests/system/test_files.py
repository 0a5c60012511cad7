"""The files that commands write: complete or unchanged, beside other files."""

import stat

import pytest

from amtml_pl.errors import UserError
from amtml_pl.system.files import named_output, output, replacing


def write(file):
    with output(file) as temporary:
        temporary.write_text("{}")


def test_a_file_is_replaced_as_a_whole_and_its_folder_is_made(tmp_path):
    file = tmp_path / "new" / "deep" / "table.csv"
    with replacing(file) as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "new").exists()
        assert temporary.suffix == ".csv"
    assert file.read_text() == "whole"
    assert [*tmp_path.rglob(".*")] == []


def test_a_written_file_has_the_mode_of_the_umask(tmp_path):
    (tmp_path / "other").write_text("")
    write(tmp_path / "found.json")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("other", "found.json")}
    assert len(modes) == 1


def test_hidden_files_of_the_user_beside_it_stay(tmp_path):
    (tmp_path / ".found.json").write_text("mine")
    write(tmp_path / "found.json")
    assert (tmp_path / ".found.json").read_text() == "mine"


def test_half_of_a_first_file_that_a_killed_process_left_is_replaced(tmp_path):
    file = tmp_path / "new" / "table.csv"
    killed = replacing(file, mark="new")
    killed.__enter__().write_text("ha")
    file.parent.mkdir(exist_ok=True)  # as right before the rename, at which the process is killed
    with replacing(file, mark="new") as temporary:
        temporary.write_text("whole")
    assert [each.name for each in tmp_path.rglob("*") if each.is_file()] == ["table.csv"]


def test_two_commands_with_one_target_do_not_interfere(tmp_path):
    file = tmp_path / "found.json"
    with replacing(file) as one, replacing(file) as other:
        one.write_text("one")
        other.write_text("other")
    assert file.read_text() == "one"


def test_a_stopped_write_leaves_the_earlier_file_and_nothing_else(tmp_path):
    file = tmp_path / "found.json"
    file.write_text("before")
    with pytest.raises(KeyboardInterrupt), replacing(file) as temporary:  # noqa: PT012
        temporary.write_text("ha")
        raise KeyboardInterrupt
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"found.json": "before"}


def test_a_target_that_becomes_a_folder_is_one_message_and_leaves_nothing(tmp_path):
    file = tmp_path / "found.json"
    with pytest.raises(UserError, match=r"found\.json cannot"), output(file) as temporary:  # noqa: PT012
        temporary.write_text("whole")
        file.mkdir()
    assert [*tmp_path.iterdir()] == [file]


def test_a_command_replaces_only_files_of_its_own_kind(tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text("{}")
    kind = {"suffix": ".json", "what": "an evaluation"}
    with pytest.raises(UserError, match=r"mine\.json is not an evaluation. It was not overwritten"):
        named_output(str(mine), **kind, is_one=lambda _: False)
    assert named_output(str(mine), **kind, is_one=lambda _: True) == mine
    with pytest.raises(
        UserError, match=r"has a wrong suffix \(expected \.json for an evaluation\)(.|\n)*out=mine\.json"
    ):
        named_output("mine.csv", **kind, is_one=lambda _: True)
    assert named_output(f"{tmp_path}/new/found.json", **kind, is_one=lambda _: False).name == "found.json"
    assert not (tmp_path / "new").exists()
