"""`amtml_pl.distill` makes an exported student of a folder of images, or ends with one message."""

import shutil

import pytest
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import save_file

from amtml_pl import UserError, distill, own_images
from amtml_pl.data.datasets.folder_survey import survey_folder
from amtml_pl.results.export.formats import open_exported
from amtml_pl.results.run import load_run
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.console import counted
from archives import write_image_folder
from tiny_runs import weights

pytestmark = pytest.mark.slow

SMALL = {"teachers": ["vgg8_quarter"], "student": "resnet8_thin", "epochs": 1, "method": "avg"}


@pytest.fixture
def photos(tmp_path, monkeypatch, short_measurements):
    """Return a folder of 3 classes with 8 images each, in a folder that is the current one."""
    GlobalHydra.instance().clear()
    monkeypatch.chdir(tmp_path)
    return write_image_folder(tmp_path / "my photos", per_class={".": 8})


@pytest.fixture(scope="module")
def made():
    """Return what `project` has made."""
    return []


@pytest.fixture
def project(made, shared, monkeypatch, short_measurements):
    """Return such a folder, the current one, and what `distill` has made of it, once for several tests."""
    GlobalHydra.instance().clear()
    folder = shared / "project"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    if not made:
        photos = write_image_folder(folder / "my photos", per_class={".": 8})
        made.append((photos, small(photos)))
    return made[0]


def small(images, **others):
    plain = ("trainer=cpu", "logger=[]", "data.val_size=6")
    return distill(images, **{**SMALL, "overrides": plain, **others})


def test_a_folder_of_classes_becomes_a_student_in_a_file(project, capsys):
    photos, result = project
    assert result.file == photos.parent / "student.onnx"
    assert len(open_exported(result.file).card.classes) == 3
    assert result.run.record.dataset.sizes == {"train": 12, "val": 6, "test": 6}
    assert result.run.record.dataset.name == "my_photos"
    assert list(result.teacher_accuracy) == ["vgg8_quarter"]
    assert result.accuracy == result.run.record.metrics["test/acc"]
    assert f"student resnet8_thin     {result.accuracy:.4f}" in repr(result)
    assert f"<td>{result.accuracy:.4f}</td>" in result._repr_html_()
    [entry] = load_run(result.run.path).path.glob("export/export.json")
    assert "python -m amtml_pl.export " in entry.read_text()
    capsys.readouterr()
    again = small(photos)
    assert "The run is already completed" in capsys.readouterr().out
    assert again.run.path == result.run.path
    assert again.file.is_file()


def test_force_trains_the_student_of_a_completed_call_again_into_the_same_folder(photos):
    first = small(photos)
    before = first.run.record
    again = small(photos, force=True)
    assert again.run.path == first.run.path
    assert again.run.record.timing != before.timing  # of another fit
    assert again.run.record.metrics == before.metrics
    assert open_exported(again.file).card.classes == ("cat", "dog", "owl")


def test_a_folder_with_more_images_is_not_taken_for_the_one_of_the_completed_run(project):
    photos, _ = project
    image = next((photos / "cat").glob("*"))
    another = shutil.copy(image, image.with_stem("another"))
    try:
        with pytest.raises(UserError, match="The images of 'my_photos' have changed"):
            small(photos)
    finally:
        another.unlink()


def test_folders_train_and_test_are_taken_and_the_suffix_chooses_the_format(tmp_path, photos):
    divided = write_image_folder(tmp_path / "divided", per_class={"train": 8, "val": 2, "test": 3})
    result = small(divided, out=tmp_path / "small.safetensors")
    assert result.run.record.dataset.sizes == {"train": 24, "val": 6, "test": 9}
    assert open_exported(result.file).card.classes == ("cat", "dog", "owl")


def test_a_teacher_may_have_a_file_of_weights_or_a_run_folder(project):
    photos, first = project
    save_file(weights(RunFolder(first.run.path)), photos.parent / "own.pt.safetensors")
    given = {"resnet8_thin": "own.pt.safetensors", "vgg8_quarter": None}
    with_file = small(photos, teachers=given, student="resnet8")
    assert list(with_file.teacher_accuracy) == ["resnet8_thin", "vgg8_quarter"]
    with_run = small(photos, teachers={"resnet8_thin": first.run.path}, student="resnet8")
    assert with_run.teacher_accuracy["resnet8_thin"] == with_file.teacher_accuracy["resnet8_thin"]


def test_a_timm_model_is_a_pretrained_backbone_with_a_fitted_classifier():
    words = own_images.teacher_words(["timm/vit_tiny_patch16_224.augreg", "resnet56"])
    key = "vit_tiny_patch16_224_augreg"
    assert words == {key: [f"teacher.{key}.pretrained=true", f"teacher.{key}.head=linear"], "resnet56": []}


def test_the_minutes_choose_epochs_and_views_once_for_all_seeds(photos, monkeypatch, capsys):
    found = survey_folder(photos)
    words = ["experiment=own_images", "student=resnet8_thin", "teacher=[vgg8_quarter]", "method=avg"]
    words += [*own_images.image_words(found, None), "trainer=cpu"]
    short = own_images.budget_of([*words, "seed=0"], found, 0.001)
    assert (short.epochs, short.views) == (2, 1)
    needed = counted(max(round(short.minutes), 1), "minute")
    assert f"2 epochs will take about {needed} (got minutes=0.001)" in capsys.readouterr().out
    long = own_images.budget_of([*words, "seed=0"], found, 100)
    assert (long.epochs, long.views) == (60, 60)
    assert long.minutes < 100
    from amtml_pl.training import time_budget

    monkeypatch.setattr(time_budget, "time_budget", None)  # another measurement would fail
    assert own_images.budget_of([*words, "seed=1"], found, 100) == long


@pytest.mark.parametrize(("side", "size"), [(8, 32), (48, 32), (64, 64), (500, 64)])
def test_the_image_size_follows_the_images(tmp_path, side, size):
    write_image_folder(tmp_path, per_class={".": 5}, size=(side, side + 9))
    found = survey_folder(tmp_path)
    assert found.side == side
    assert f"dataset.image_size={size}" in own_images.image_words(found, None)
    assert "dataset.image_size=96" in own_images.image_words(found, 96)


def one_class(photos):
    shutil.rmtree(photos / "cat")
    shutil.rmtree(photos / "dog")


def loose_images(photos):
    for file in [*photos.glob("*/*.png")]:
        file.rename(photos / f"{file.parent.name}{file.name}")
    for folder in [each for each in photos.iterdir() if each.is_dir()]:
        folder.rmdir()


def few_images(photos):
    for file in sorted((photos / "dog").iterdir())[3:]:
        file.unlink()


def no_test(photos):
    write_image_folder(photos, per_class={"train": 8})


def damaged(photos):
    (photos / "cat" / "0003.png").write_bytes(b"no image")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, r"my photos is not a folder"),
        (one_class, r"too few folders of classes \(got 1 class with 8 images, expected 2 or more\)"),
        (loose_images, r"too few folders of classes \(got 0 classes with 24 images"),
        (few_images, r"classes with too few images \(got dog: 3; expected 5 or more"),
        (no_test, "has a folder train, but none for the test"),
        (damaged, r"1 of 18 images cannot be read.*cat/0003.png"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_images_that_cannot_be_used_are_one_message(photos, capfd, change, message):
    change(photos)
    with pytest.raises(UserError, match=message):
        small(photos)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"student": "resnet9"}, "student=resnet9: unknown choice; did you mean 'resnet8'"),
        ({"teachers": ["resnet65"]}, "teacher=resnet65: unknown choice; did you mean 'resnet56'"),
        ({"teachers": []}, "teachers is empty"),
        ({"teachers": ["weights/a.pt"]}, r"file without the name of its network.\nFix: teachers=.'resnet56'"),
        ({"teachers": {"resnet8": "gone.pt"}}, "weights of teacher 'resnet8' do not exist"),
        ({"out": "gone/student.onnx"}, "The folder of out=gone/student.onnx does not exist"),
        ({"out": "student.onxx"}, r"unknown suffix \(expected .onnx or .safetensors\)"),
        ({"out": "other.onnx"}, "not a student exported as onnx. It was not overwritten"),
        ({"method": "amtlm"}, "method=amtlm: unknown choice; did you mean 'amtml'"),
        ({"minutes": 0}, "too short"),
        ({"epochs": 0}, "too short"),
        ({"overrides": ["studnet=x"]}, "studnet: unknown key"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_argument_is_one_message_before_any_training(photos, tmp_path, arguments, message):
    (tmp_path / "other.onnx").write_bytes(b"mine")
    with pytest.raises(UserError, match=message):
        small(photos, **arguments)
    assert not [*tmp_path.rglob("run.json")]
    assert (tmp_path / "other.onnx").read_bytes() == b"mine"


def test_the_folder_of_the_training_step_is_callable_and_shows_the_arguments():
    import inspect

    import amtml_pl.distill.module

    assert amtml_pl.distill.module.StudentModule
    assert list(inspect.signature(amtml_pl.distill).parameters)[:4] == [
        "images",
        "teachers",
        "student",
        "out",
    ]
