"""Figures as pixels, without the state that `matplotlib.pyplot` keeps."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

READABLE = 20  # ticks on an axis
# Fonts with Chinese, Japanese and Korean letters, if a machine has them; matplotlib brings none.
EAST_ASIAN = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "IPAexGothic", "IPAGothic", "TakaoGothic", "NanumGothic", "Droid Sans Fallback",
    "PingFang SC", "Hiragino Sans", "Arial Unicode MS", "Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic",
    "Malgun Gothic",
)  # fmt: skip


def new_figure(width: float, height: float, *, fitted: bool = True) -> Figure:
    """Return an empty figure; inches have a hundred pixels."""
    from matplotlib.figure import Figure  # only here: the import takes half a second

    return Figure(figsize=(width, height), dpi=100, layout="tight" if fitted else None)


def pixels(figure: Figure) -> np.ndarray:
    """Return a figure as (H, W, 3) uint8; letters without a font are boxes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.font_manager import fontManager
    from matplotlib.text import Text

    installed = {font.name for font in fontManager.ttflist}
    others = [name for name in EAST_ASIAN if name in installed]
    for text in figure.findobj(Text):
        text.set_fontfamily([*text.get_fontfamily(), *others])
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of each letter, in each figure
        canvas.draw()  # type: ignore[no-untyped-call]
    drawn: np.ndarray = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
    return drawn


def shorten(name: str, length: int = 14) -> str:
    """Shorten a name to fit beside an axis, and escape matplotlib's mathematics."""
    name = name if len(name) <= length else f"{name[: length - 1]}…"
    return name.replace("$", r"\$")
