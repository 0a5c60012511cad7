"""Messages for mistakes that the user can correct."""

from amtml_pl.errors import raised_by

ADDRESS = "https://mlflow.org/docs/latest/self-hosting/migrate-from-file-store"


def test_a_long_message_of_a_part_ends_with_a_whole_word():
    long = f"{'word ' * 47}See {ADDRESS} for more.\nand a second line"
    assert len(long) > 300
    what = raised_by("logger.mlflow", "describe", ValueError(long)).what
    assert what.startswith("logger.mlflow raised ValueError in describe: word word")
    assert "word word See … After a correction, the same command resumes the run" in what


def test_a_message_of_dots_is_the_type_and_a_long_word_is_cut():
    assert "in forward: ValueError. After" in raised_by("loss.mine", "forward", ValueError("...")).what
    assert f"in forward: {'a' * 300}… After" in raised_by("loss.mine", "forward", ValueError("a" * 400)).what


def test_a_short_message_of_a_part_is_complete():
    what = raised_by("callbacks.mine", "setup", ValueError(f"See {ADDRESS}.")).what
    assert f"See {ADDRESS}. After a correction" in what
