"""Image files that somebody names, and their pixels as the data sets of image files have them."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from itertools import batched
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.datasets.files import FolderFiles
from amtml_pl.datasets.image_folder import SUFFIXES, image_names, read_images
from amtml_pl.errors import UserError
