"""Memory that operations on tensors need, counted without a clock or the machine's load."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Storages(TorchDispatchMode):
    """Record the bytes of every storage that an operation returns, in the backward pass too."""

    def __init__(self):
        super().__init__()
        self.bytes = {}  # by address; the largest if memory is used again

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                address = storage.data_ptr()
                self.bytes[address] = max(self.bytes.get(address, 0), storage.nbytes())
        return result

    def largest(self):
        return max(self.bytes.values())
