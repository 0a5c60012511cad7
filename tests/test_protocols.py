"""Every protocol of a published table runs, with its own networks, on archives in the official format."""

import pytest
import torch
from torch.optim import SGD

from amtml_pl.config.build import build_object
from amtml_pl.config.paths import config_directory
from amtml_pl.config.teacher_recipe import recipe
from amtml_pl.models.taps import TappedNetwork
from archives import official, write_cifar100

PAIRS = sorted(file.stem for file in (config_directory() / "experiment").glob("cifar100_crd_*_*.yaml"))
SEVERAL = ["cifar100_mtkd", "cifar100_mtkd_resnet32x4_vgg8"]
PROTOCOLS = ["cifar100_crd", "cifar100_crd_teacher", *PAIRS, *SEVERAL]
# Parameters of RepDistiller's networks for 100 classes, counted in its code.
PARAMETERS = {
    "resnet20": 278_324, "resnet32": 472_756, "resnet56": 861_620, "resnet110": 1_736_564,
    "resnet8x4": 1_233_540, "resnet32x4": 7_433_860, "vgg8": 3_965_028, "vgg13": 9_462_180,
    "wrn_16_2": 703_284, "wrn_40_1": 569_780, "wrn_40_2": 2_255_156,
}  # fmt: skip


def conv(source, channels, kernel=3, bias=False):
    return kernel**2 * source * channels + bias * channels


def residual(depth, widths):
    """Count a residual network: blocks of two convolutions with batch norm, and projections."""
    total = conv(3, widths[0]) + 2 * widths[0] + (widths[3] + 1) * 100
    source = widths[0]
    for stage, width in enumerate(widths[1:]):
        for block in range((depth - 2) // 6):
            total += conv(source, width) + conv(width, width) + 4 * width
            if block == 0 and (stage > 0 or source != width):
                total += conv(source, width, 1) + 2 * width
            source = width
    return total


def wide(depth, factor):
    """Count a wide residual network: batch norm before each convolution, plain projections."""
    total, source = conv(3, 16), 16
    for width in (16 * factor, 32 * factor, 64 * factor):
        for _ in range((depth - 4) // 6):
            total += 2 * source + conv(source, width) + 2 * width + conv(width, width)
            total += conv(source, width, 1) if source != width else 0
            source = width
    return total + 2 * source + (source + 1) * 100


def vgg(convolutions):
    """Count a VGG: convolutions with bias and batch norm, and one linear layer."""
    total, source = 513 * 100, 3
    for width in (64, 128, 256, 512, 512):
        for _ in range(convolutions):
            total += conv(source, width, bias=True) + 2 * width
            source = width
    return total


def test_the_networks_have_as_many_parameters_as_those_of_the_tables(configure):
    narrow, fourfold = (16, 16, 32, 64), (32, 64, 128, 256)
    counted = {f"resnet{depth}": residual(depth, narrow) for depth in (20, 32, 56, 110)}
    counted |= {f"resnet{depth}x4": residual(depth, fourfold) for depth in (8, 32)}
    counted |= {"vgg8": vgg(1), "vgg13": vgg(2)}
    counted |= {f"wrn_{depth}_{k}": wide(depth, k) for depth, k in ((16, 2), (40, 1), (40, 2))}
    assert counted == PARAMETERS
    config = configure("dataset=cifar100", f"teacher=[{','.join(PARAMETERS)}]")
    for name, expected in PARAMETERS.items():
        with torch.device("meta"):
            network = build_object(config.teacher[name].network)
        assert sum(each.numel() for each in network.parameters()) == expected, name


def test_the_stages_are_the_maps_between_stem_and_pooling_of_the_tables(configure):
    """RepDistiller pairs ``feat[1:-1]``: of a VGG, blocks 1 to 4 of 0 to 4."""
    maps = {
        "vgg8": [(128, 16), (256, 8), (512, 4), (512, 4)],
        "resnet8x4": [(64, 32), (128, 16), (256, 8)],
        "wrn_16_2": [(32, 32), (64, 16), (128, 8)],
    }
    config = configure("dataset=cifar100", f"teacher=[{','.join(maps)}]")
    for name, expected in maps.items():
        teacher = config.teacher[name]
        network = build_object(teacher.network)
        network = TappedNetwork(network, mean=teacher.mean, std=teacher.std, taps=teacher.stages).eval()
        features = network(torch.rand(1, 3, 32, 32)).features
        assert [tuple(features[stage].shape[1:3]) for stage in teacher.stages] == expected, name


def test_the_last_map_of_a_wide_teacher_of_several_is_behind_its_last_activation(configure):
    assert configure("experiment=cifar100_mtkd", "method=camkd").teacher.activated_wrn_28_4.hint == "relu"


@pytest.mark.parametrize("experiment", PROTOCOLS)
def test_a_protocol_has_the_published_schedule_and_all_images(configure, experiment):
    config = configure(f"experiment={experiment}", "method=ce")
    assert (config.trainer.max_epochs, config.data.batch_size, config.data.val_size) == (240, 64, 0)
    assert (config.dataset.name, config.data.train_size) == ("cifar100", None)
    assert (list(config.dataset.mean), list(config.dataset.std)) == (
        [0.5071, 0.4867, 0.4408],
        [0.2675, 0.2565, 0.2761],
    )
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_object(config.optimizer, partial=True)([weight])
    assert isinstance(optimizer, SGD)
    assert optimizer.defaults["momentum"] == 0.9
    assert optimizer.defaults["weight_decay"] == (1e-4 if experiment == "cifar100_mtkd" else 5e-4)
    assert optimizer.defaults["nesterov"] == (experiment in SEVERAL)
    schedule, rates = build_object(config.scheduler, partial=True)(optimizer), []
    for _ in range(240):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    changes = [epoch for epoch in range(1, 240) if rates[epoch] != rates[epoch - 1]]
    assert changes == [150, 180, 210]
    assert [rates[0], rates[150], rates[180], rates[239]] == pytest.approx([0.05, 0.005, 0.0005, 0.00005])


@pytest.mark.parametrize(
    ("student", "lr"), [("resnet20", 0.05), ("mobilenet_v2", 0.01), ("shufflenet_v2", 0.01)]
)
def test_the_student_decides_the_learning_rate_also_as_a_teacher(configure, student, lr):
    crd = ("experiment=cifar100_crd", f"student={student}", f"teacher=[{student}]")
    assert configure(*crd).optimizer.lr == lr
    assert configure("experiment=cifar100_crd_teacher", f"student={student}").optimizer.lr == lr
    assert recipe(configure(*crd), student).optimizer.lr == lr
    assert configure("experiment=cifar100", "method=ce", f"student={student}").optimizer.lr == 0.1


def test_each_of_the_seven_pairs_names_its_networks(configure):
    assert len(PAIRS) == 7
    for pair in PAIRS:
        config = configure(f"experiment={pair}", "method=kd")
        [teacher] = config.teacher
        student = next(name for name in PARAMETERS if pair.endswith(f"_{name}"))
        assert (
            teacher
            == f"cifar100_{pair.removeprefix('cifar100_crd_').removesuffix(f'_{student}')}_repdistiller"
        )
        with torch.device("meta"):
            network = build_object(config.student.network)
        assert sum(each.numel() for each in network.parameters()) == PARAMETERS[student]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [*PAIRS, *SEVERAL])
def test_a_protocol_runs_with_its_networks(configure, run, tmp_path, experiment):
    archive = write_cifar100(tmp_path / "data" / "cifar100", train_per_class=1)
    own = [f"paths.data={tmp_path}/data", f"paths.teachers={tmp_path}/teachers", official(archive)]
    method = ("method=avg",) if experiment in SEVERAL else ("method=kd",)
    for name, node in configure(f"experiment={experiment}", *method).teacher.items():
        torch.manual_seed(0)
        file = tmp_path / f"{name}.pt"
        torch.save(build_object(node.network).state_dict(), file)
        given = {
            "url": "null",
            "member": "null",
            "sha256": "null",
            "key": "null",
            "rename": "null",
            "path": file,
        }
        own += [f"teacher.{name}.weights.{key}={value}" for key, value in given.items()]
        own.append(f"teacher.{name}.min_accuracy=0")
    small = ("trainer=cpu", "trainer.max_epochs=1", "logger=[]", "cache.logits=float32")
    record, _ = run(f"experiment={experiment}", *method, *own, *small)
    assert record.budget["selection"] == "last"
    assert record.dataset.sizes == {"train": 100, "test": 100}
    assert record.metrics["test/acc"] == record.metrics["test/acc_last"]
    assert {f"teacher/{name}/train/acc" for name in record.teachers} <= set(record.metrics)
