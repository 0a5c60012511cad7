"""The training loops of two published codes, for `other_loops.py`.

They were written after reading these files and keep their order of work. speed.md states the differences.

- CA-MKD: https://github.com/Rorozhl/CA-MKD, commit acc8c2b (`train_distill_multi_teacher` in helper/loops.py,
  dataset/cifar100.py, distiller_zoo/CAMKD.py, models/util.py, scripts/run.sh)
- notebook: https://github.com/FLHonker/AMTML-KD-code, commit 7fd27cb (`train_adapter` in
  LR_adaptive_learning.ipynb, metric/loss.py)
"""

from __future__ import annotations

import statistics
from abc import abstractmethod
from itertools import pairwise

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.training.benchmark.bare_loop import any_algorithm, time_when_done

BATCH = 128
TEACHERS = (32, 56, 110)
WORKERS = 8  # CA-MKD's --num_workers; the notebook has none
CROP_AND_FLIP = (transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip())
TO_TENSOR = (transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.29, 0.29, 0.29)))


class RandomImages(Dataset[tuple[Tensor, int]]):
    """Random pixels that are read as torchvision reads CIFAR: one PIL image after the other."""

    def __init__(self, images: int, classes: int, transform: transforms.Compose) -> None:
        self.pixels = torch.randint(256, (images, 32, 32, 3), dtype=torch.uint8).numpy()
        self.labels = torch.randint(classes, (images,)).tolist()
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image and its label."""
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


class OtherLoop:
    """Training loop with live teachers.

    Args:
        transform: of each image.
        workers: processes that load images.
    """

    def __init__(
        self, classes: int, steps: int, device: str, *, transform: list[object], workers: int
    ) -> None:
        self.device = torch.device(device)
        self.student = CifarResNet(20, classes).to(device).train()
        self.teachers = [teacher(depth, classes).to(device) for depth in TEACHERS]
        batches = steps + 1 + 2 * workers  # also those that the workers load in advance
        images = RandomImages(batches * BATCH, classes, transforms.Compose(transform))
        self.loader = DataLoader(images, BATCH, shuffle=True, num_workers=workers)

    @abstractmethod
    def step(self, images: Tensor, labels: Tensor) -> None:
        """Train on a batch."""

    def seconds(self, steps: int) -> float:
        """Return the median time of a new epoch's steps, with their input; the first is not timed."""
        times, batches = [], iter(self.loader)
        with any_algorithm():
            for _ in range(steps + 1):
                images, labels = next(batches)
                self.step(images.to(self.device), labels.to(self.device))
                times.append(time_when_done(self.device))
        return statistics.median(after - before for before, after in pairwise(times))


class CaMkd(OtherLoop):
    """CA-MKD with ``--distill inter --ensemble_method CAMKD -r 1 -a 1 -b 50 --nesterov``."""

    def __init__(self, classes: int, steps: int, device: str) -> None:
        transform = [*CROP_AND_FLIP, *TO_TENSOR]
        super().__init__(classes, steps, device, transform=transform, workers=WORKERS)
        self.embeddings = nn.ModuleList(
            nn.Sequential(nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64), nn.ReLU(inplace=True)) for _ in TEACHERS
        ).to(device)
        trained = [*self.student.parameters(), *self.embeddings.parameters()]
        self.optimizer = torch.optim.SGD(trained, 0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
        self.measured: list[tuple[float, Tensor, Tensor]] = []

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Weigh each teacher's soft targets and last maps by the teacher's cross-entropy."""
        maps, _, logits = forward(self.student, images)
        with torch.no_grad():
            outputs = [forward(network, images) for network in self.teachers]
        cross_entropy = F.cross_entropy(logits, labels)
        weights = confidence([own for _, _, own in outputs], labels)
        log_student = F.log_softmax(logits / 4, dim=1)
        divergences = [
            F.kl_div(log_student, F.softmax(own / 4, dim=1), reduction="none").mul(16).sum(1)
            for _, _, own in outputs
        ]
        soft = (weights * torch.stack(divergences)).sum() / weights.numel()
        embedded = [embed(F.adaptive_avg_pool2d(maps[-1], 8)) for embed in self.embeddings]
        classified = [t.fc(t.avgpool(e).flatten(1)) for t, e in zip(self.teachers, embedded, strict=True)]
        differences = [
            F.mse_loss(e, theirs[-1], reduction="none").flatten(1).mean(1)
            for e, (theirs, _, _) in zip(embedded, outputs, strict=True)
        ]
        features = (confidence(classified, labels) * torch.stack(differences)).sum() / weights.numel()
        loss = cross_entropy + soft + 50 * features
        found = logits.detach().topk(5).indices == labels[:, None]
        self.measured.append((loss.item(), found[:, 0].float().mean(), found.any(1).float().mean()))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class Notebook(OtherLoop):
    """First stage of LR_adaptive_learning.ipynb, which alone has its hints in the loss."""

    def __init__(self, classes: int, steps: int, device: str) -> None:
        transform = [*reversed(CROP_AND_FLIP), *TO_TENSOR]
        super().__init__(classes, steps, device, transform=transform, workers=0)
        self.theta = torch.randn(len(TEACHERS), 64, device=device, requires_grad=True)
        self.w = torch.randn(64, 1, device=device, requires_grad=True)
        self.regressions = [nn.Conv2d(32, 32, 1, bias=False).to(device) for _ in TEACHERS]
        self.optimizers = [
            torch.optim.SGD(self.student.parameters(), 0.1, momentum=0.9, weight_decay=5e-4),
            torch.optim.SGD([self.w], 0.1, momentum=0.9),
            torch.optim.SGD([self.theta], 0.1, momentum=0.9),
        ]

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Train student and adapter from soft targets, angles, distances and hints."""
        maps, pooled, logits = forward(self.student, images)
        hints, soft = [], []
        for network in self.teachers:
            with torch.no_grad():
                theirs, _, own = forward(network, images)
            hints.append(theirs[1])
            soft.append(F.softmax(own / 5, dim=1))
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        scores = [(pooled.flatten(1) * latent).mm(self.w) for latent in self.theta]
        weights = F.softmax(torch.stack(scores).squeeze(2).t(), dim=1)
        target = (weights[:, :, None] * torch.stack(soft, dim=1)).sum(1)
        log_student = F.log_softmax(logits / 5, dim=1)
        loss = F.kl_div(log_student, target, reduction="none").mean() * (25 * 2 * 0.7)
        loss = loss + F.cross_entropy(log_student, labels) * 0.3
        loss = loss + angle_loss(log_student, target) + distance_loss(log_student, target)
        loss = loss + 0.1 * (self.w.square().sum() + self.theta.square().sum())
        for regression, hint in zip(self.regressions, hints, strict=True):
            loss = loss + (regression(F.normalize(maps[1])) - F.normalize(hint)).square().mean()
        loss.backward(retain_graph=True)
        for optimizer in self.optimizers:
            optimizer.step()


def teacher(depth: int, classes: int) -> CifarResNet:
    """Return an untrained teacher in evaluation mode, with usable batch-norm statistics."""
    network = CifarResNet(depth, classes)
    update_bn([(torch.rand(BATCH, 3, 32, 32) - 0.5) / 0.29], network)
    return network.eval()


def forward(network: CifarResNet, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the maps of the three stages, the pooled last one and the logits."""
    x, maps = network.relu(network.bn1(network.conv1(images))), []
    for stage in (network.layer1, network.layer2, network.layer3):
        x = stage(x)
        maps.append(x)
    pooled = network.avgpool(x)
    return maps, pooled, network.fc(pooled.flatten(1))


def confidence(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Return CA-MKD's weights (M, B): larger for a teacher with a smaller cross-entropy."""
    each = torch.stack([F.cross_entropy(own, labels, reduction="none") for own in logits])
    return (1 - F.softmax(each, dim=0)) / (len(logits) - 1)


def angle_loss(student: Tensor, target: Tensor) -> Tensor:
    """Return RKD's angle loss, from all B² difference vectors."""

    def angles(rows: Tensor) -> Tensor:
        unit = F.normalize(rows[None] - rows[:, None], dim=2)
        return torch.bmm(unit, unit.transpose(1, 2)).flatten()

    with torch.no_grad():
        wanted = angles(target)
    return F.smooth_l1_loss(angles(student), wanted)


def distance_loss(student: Tensor, target: Tensor) -> Tensor:
    """Return RKD's distance loss."""

    def distances(rows: Tensor) -> Tensor:
        squares = rows.square().sum(1)
        found = (squares[:, None] + squares[None] - 2 * rows @ rows.t()).clamp(min=1e-12).sqrt()
        found = found * (1 - torch.eye(len(rows), device=rows.device))
        return found / found[found > 0].mean()

    with torch.no_grad():
        wanted = distances(target)
    return F.smooth_l1_loss(distances(student), wanted)
