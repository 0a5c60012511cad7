"""Bound the difference of two computations that rounding alone causes on any processor.

A processor may add the products of a sum in any order, fused or not. The last digits then differ.
"""

import math

import torch


def rounding(products, layers=1, dtype=torch.float32):
    """Return the relative error of ``layers`` sums of ``products`` products, each made of the one before.

    After Higham and Mary (SIAM J. Sci. Comput. 41, 2019). A sum of n products is off by more than 8·√n units
    of rounding with a probability of 3e-14.
    """
    return 8 * layers * math.sqrt(products) * torch.finfo(dtype).eps / 2


def assert_rounded_alike(got, expected, products, layers=1):
    """Assert that two tensors differ by rounding alone, measured at their largest number.

    It is for sums whose largest result has the size of their summands; where all cancel, it is too strict.
    """
    within = rounding(products, layers, expected.dtype) * float(expected.detach().abs().max())
    torch.testing.assert_close(got, expected, rtol=0, atol=within)


def undecided(scores, within):
    """Return which rows could name another class if each score moved by ``within``."""
    first, second = scores.topk(2, dim=-1).values.unbind(-1)
    return first - second <= 2 * within


def images_of(run, name):
    """Return the images of a run's split, in [0, 1]."""
    split = run.split(name)
    return split.stored.images[split.rows] / torch.full((), 255.0)
