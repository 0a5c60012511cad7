"""Students that start from the weights of a run or of a file."""

import pytest
import torch
from safetensors.torch import save_file

from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.identity import run_hash
from amtml_pl.teachers.live import weights_digest
from amtml_pl.training.settings import settings_of
from tiny_runs import CE, assert_bitwise_equal, at_step, failing, ready, weights

pytestmark = pytest.mark.slow

LABELS = ("experiment=digits", "method=ce", *CE, "doctor=false")


@pytest.fixture
def origin(run):
    """Return the folder of a completed run."""
    return run(*LABELS, "trainer.max_epochs=1", name="origin")[1]


def started(configure, tmp_path, start, *overrides):
    made = ready(configure(*LABELS, f"init_from={start}", *overrides), RunFolder(tmp_path / "started"))
    return made.module.student.network.state_dict()


def test_a_student_starts_from_the_selected_weights_of_a_run(configure, origin, tmp_path):
    assert_bitwise_equal(started(configure, tmp_path, origin.path), weights(origin))


@pytest.mark.parametrize("kind", ["safetensors", "torch", "DataParallel", "Lightning"])
def test_a_student_starts_from_a_file(configure, origin, tmp_path, kind):
    own, file = weights(origin), tmp_path / "start.pt"
    if kind == "safetensors":
        file = origin.weights_file
    elif kind == "Lightning":
        file = origin.last_checkpoint
        own = {k.removeprefix("student.network."): v for k, v in torch.load(file)["state_dict"].items()
               if k.startswith("student.network.")}  # fmt: skip
    else:
        prefix = "module." if kind == "DataParallel" else ""
        torch.save({f"{prefix}{name}": tensor for name, tensor in own.items()}, file)
    assert_bitwise_equal(started(configure, tmp_path, file), own)


def test_the_start_is_part_of_the_identity_by_content_and_of_the_budget(run, configure, origin, tmp_path):
    copy = tmp_path / "copy.safetensors"
    save_file(weights(origin), copy)
    hashes = [run_hash(configure(*LABELS, f"init_from={start}")) for start in (origin.path, copy)]
    assert hashes[0] != run_hash(configure(*LABELS))
    first = RunFolder(tmp_path / "first")
    record, _ = run(*LABELS, f"init_from={origin.path}", name="first")
    plain, _ = run(*LABELS, name="plain")
    assert plain.budget["init_from"] == "none" != record.budget["init_from"]
    assert plain.budget["student_initial"] != record.budget["student_initial"]
    assert f"init_from: {origin.path}\n" in first.config_file.read_text()
    changed = {name: tensor + 1 for name, tensor in weights(origin).items()}
    save_file(changed, copy)
    assert run_hash(configure(*LABELS, f"init_from={copy}")) not in hashes


def test_seeds_that_start_from_the_runs_of_their_seeds_are_one_study_with_hashes_of_their_own(
    run, configure, origin
):
    _, other = run(*LABELS, "trainer.max_epochs=1", "seed=1", name="other seed")
    _, longer = run(*LABELS, "seed=1", name="other study")
    starts = [("seed=0", origin.path), ("seed=1", other.path), ("seed=1", origin.path),
              ("seed=1", longer.path), ("seed=1", other.weights_file)]  # fmt: skip
    jobs = [configure(*LABELS, seed, f"init_from={start}") for seed, start in starts]
    studies = [settings_of(job).study() for job in jobs]
    assert studies[0] == studies[1] == studies[2]
    assert len({*studies}) == 3  # a run of another study, and a file, are another start
    assert len({run_hash(job) for job in jobs[:4]}) == 4
    records = [run(*LABELS, seed, f"init_from={start}", name=f"from {seed}")[0] for seed, start in starts[:2]]
    assert records[0].budget["init_from"] == records[1].budget["init_from"]


def test_a_killed_run_with_given_weights_resumes_to_the_bit(run, origin, monkeypatch):
    job = (*LABELS, f"init_from={origin.path}", "checkpoint_minutes=0")
    _, whole = run(*job, name="whole")
    with monkeypatch.context() as patched:
        at_step(patched, 5, failing(RuntimeError("killed")))
        with pytest.raises(RuntimeError, match="killed"):
            run(*job, name="cut")
    _, cut = run(*job, name="cut")
    assert_bitwise_equal(weights(cut), weights(whole))


def test_other_random_numbers_stay_those_of_the_seed(configure, origin, tmp_path):
    made = [ready(configure(*LABELS, *start), RunFolder(tmp_path / "run"))
            for start in ((), (f"init_from={origin.path}",))]  # fmt: skip
    orders = [next(iter(each.data.train_batches(0))).index.tolist() for each in made]
    assert orders[0] == orders[1]
    assert len({weights_digest(each.module.student.network) for each in made}) == 2


def test_tensors_that_do_not_fit_are_listed(configure, origin, tmp_path):
    own = weights(origin)
    last = [*own][-1]
    own["extra"], own["conv1.weight"] = own.pop(last), torch.zeros(1)
    save_file(own, file := tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"(?s)does not fit CifarResNet .*Missing keys: 1.*Unexpected keys: 1 "
                       r".extra.*Wrong shapes: 1 .conv1.weight.*same student"):  # fmt: skip
        started(configure, tmp_path, file)


def test_a_classifier_of_other_classes_is_named(configure, origin, tmp_path):
    own = weights(origin)
    own["fc.weight"], own["fc.bias"] = own["fc.weight"].repeat(2, 1), own["fc.bias"].repeat(2)
    save_file(own, file := tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"(?s)classifier of .* other classes .*got .20, .*expected .10, "):
        started(configure, tmp_path, file)


def test_what_is_no_completed_run_and_no_weights_is_refused(configure, tmp_path):
    with pytest.raises(UserError, match="is not the folder of a completed run"):
        started(configure, tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"nothing.pt does not exist"):
        started(configure, tmp_path, tmp_path / "nothing.pt")
    (tmp_path / "damaged.pt").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read as network weights"):
        started(configure, tmp_path, tmp_path / "damaged.pt")
