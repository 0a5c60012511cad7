"""The tables of ``python -m amtml_pl.info``: numbers of constructed networks, words of YAML files."""

import re

import pytest

from amtml_pl import info
from amtml_pl.config.build import plain_values
from amtml_pl.config.paths import config_directory
from amtml_pl.system.console import Terminal

pytestmark = pytest.mark.slow


@pytest.fixture
def table(command, monkeypatch, tmp_path):
    """Return a function that gives the rows of a table, by the first cell of each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(info, "NARROWEST_TEXT", 250)

    def printed(*words, width=400):
        monkeypatch.setattr(info, "console", Terminal(width=width, highlight=False))
        monkeypatch.setattr(info.sys, "argv", ["info", *words])
        lines = [re.split(r"\s{2,}", line.strip()) for line in command(info.main, *words).splitlines()]
        return {cells[0]: cells[1:] for cells in lines if len(cells) > 1}

    return printed


def choices(group):
    return {file.stem for file in (config_directory() / group).glob("*.yaml")}


def test_students_have_the_costs_of_their_constructed_networks(table):
    found = table("students", "dataset=cifar100")
    assert found.keys() == choices("student") | {"student"}
    for name in ("resnet20", "vgg8_quarter"):
        header = (config_directory() / "student" / f"{name}.yaml").read_text()
        parameters, macs = re.search(r"([\d,]+) parameters, ([\d,]+) multiply", header).groups()
        assert found[name][:3] == [parameters, f"{int(macs.replace(',', '')) / 1e6:,.1f} M", "32"]
    assert found["resnet20"][3] == "ResNet-20 for small images, stages of 16, 32 and 64 channels"
    assert found["vit_tiny"][3] == "timm"


def test_a_students_costs_are_those_for_the_typed_data(table):
    assert table("students", "dataset=tiny_imagenet")["resnet8"][:3] == ["90,392", "50.0 M", "64"]


def test_teachers_have_their_source_and_the_classes_in_their_names(table):
    found = table("teachers")
    assert found.keys() == choices("teacher") | {"teacher"}
    of_cifar100, of_cifar10 = found["cifar100_resnet56_repdistiller"], found["cifar10_resnet56"]
    assert of_cifar100[0] == "861,620"
    assert of_cifar10[0] == "855,770"
    assert of_cifar100[3:5] == ["download", "github.com/megvii-research/mdistiller"]
    assert found["resnet32x4_seed1"][3] == "recipe of the experiment"


@pytest.mark.parametrize(
    ("method", "needs"),
    [
        ("avg", "teachers"),
        ("kd", "teachers, validation labels (several teachers)"),
        ("amtml", "teachers, feature maps, validation labels"),
        ("amtml_adapter", "teachers, feature maps, validation labels"),
        ("amtml_uniform_prior", "teachers, feature maps"),
        ("camkd", "teachers, feature maps, classifiers"),
        ("balanced", "teachers, feature maps, teacher_source=cached"),
    ],
)
def test_the_needs_of_a_method_are_those_of_its_objects(configure, method, needs):
    from amtml_pl.training.choices import with_method

    assert needs_of(with_method(configure(), method)) == needs


def needs_of(config):
    from amtml_pl.config.build import build_object
    from amtml_pl.training.choices import method_needs

    terms = [build_object(node) for node in config.loss.values()]
    return ", ".join(method_needs(terms, build_object(config.weighting)))


def test_every_method_is_listed_with_its_terms(table):
    found = table("methods")
    assert found.keys() == choices("method") | {"method"}
    assert found["okd"] == [
        "ce, kd, triplets", "teachers, feature maps",
        "OKD: AvgMKD (method=avg), and triplets of samples that the teachers order by vote",
    ]  # fmt: skip
    assert found["ce"] == ["ce", "Trains the student from labels only, without teachers"]


@pytest.mark.parametrize("method", sorted(choices("method")))
def test_a_listed_method_has_the_parts_of_the_composed_one(configure, method):
    from amtml_pl.training.choices import with_method

    listed, composed = with_method(configure(), method), configure(f"method={method}")
    for node in ("loss", "weighting"):
        assert plain_values(listed[node]) == plain_values(composed[node])
    assert needs_of(listed) == needs_of(composed)


def test_data_sets_name_what_is_missing_here(table):
    found = table("datasets")
    assert found.keys() == choices("dataset") | {"dataset"}
    assert found["digits"][:3] == ["10", "32", "1437"]
    assert found["digits"][3].startswith("Handwritten digits from scikit-learn")
    assert found["cifar10"][3] == "download of 170.5 MB"
    assert found["image_folder"][:4] == ["yours", "32", "yours", "your files"]


def test_columns_that_do_not_fit_are_named(monkeypatch, capsys):
    monkeypatch.setattr(info, "console", Terminal(width=40))
    info.print_table([{"teacher": "resnet8", "MACs": "1.0 M", "weights": "github.com/a/b", "what": "one"}])
    shown = capsys.readouterr().out
    assert "Columns that do not fit this terminal: weights" in " ".join(shown.split())
    assert "1.0 M" in shown


def test_the_choices_may_follow_an_option():
    assert info.with_key(["--config-dir", "mine", "teachers"]) == ["info=teachers", "--config-dir", "mine"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method"], "info='method': expected teachers, students, methods or datasets"),
        ([], "info is missing: expected teachers, students, methods or datasets"),
        (["students", "dataset=cifar"], "dataset=cifar: unknown choice; did you mean 'cifar10'?"),
        (["students", "dataset.image_size=x"], "dataset.image_size='x': expected a whole number"),
        (["students", "-m"], "--multirun is not supported by this command"),
    ],
)
def test_a_mistake_is_one_message(command, words, message):
    assert message in command(info.main, *words, status=2)


def test_a_network_that_cannot_be_built_for_the_data_has_its_reason(table):
    found = table("students", "dataset.image_size=8")
    assert found["resnet8"][2] == "8"
    assert any("fails on images of 8x8 pixels" in cells[-2] for cells in found.values())


def test_train_names_the_command_that_lists_choices(mistake):
    assert "info=methods: a command lists choices: python -m amtml_pl.info methods" in mistake("info=methods")
