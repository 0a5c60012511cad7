"""Small training steps with random but fixed tensors."""

import torch

from amtml_pl.types import ModelOutputs, Step, TeacherOutputs


def make_step(B=6, M=3, K=5, *, seed=0, epoch=0, weights=None, taps=None, hints=None, dtype=torch.float32):
    """A step with leaf student logits and weights, so that a test can ask who receives a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    student = ModelOutputs(
        normal(B, K).requires_grad_(),
        {name: normal(B, *shape).requires_grad_() for name, shape in (taps or {}).items()},
    )
    names = tuple(f"t{m}" for m in range(M))
    teachers = TeacherOutputs(
        names, 3 * normal(B, M, K), {name: normal(B, *shape) for name, shape in (hints or {}).items()}
    )
    if weights is None:
        weights = normal(B, M).softmax(dim=1)
    return Step(
        student=student,
        labels=torch.randint(K, (B,), generator=generator),
        teachers=teachers,
        weights=weights.detach().requires_grad_(),
        weighting_norm=None,
        epoch=epoch,
    )
