"""Windows of a pool, in the standard library alone."""

from __future__ import annotations

from dataclasses import dataclass

from alexsim_kernels.cpu.algorithm import Size

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Windows:
    """Rows and columns of the image that each output row and column sees: first, and one past.

    ``counts`` are the pixels that a mean divides by, down and across; of a mean alone.
    """

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    row_counts: tuple[int, ...] = ()
    column_counts: tuple[int, ...] = ()

    def band_rows(self) -> int:
        """Rows of the image that the backward pass keeps in cache."""
        return max(end - begin for begin, end in self.rows)


def sliding(
    extent: Size, out: Size, *, size: Size, stride: Size, padding: Size = (0, 0),
    count_padding: bool = True,
) -> Windows:  # fmt: skip
    """Windows of ``size`` pixels every ``stride`` pixels, the first ``padding`` outside.

    With ``count_padding`` a mean divides by the padding's pixels too; never by what a window hangs
    over it.

    Raises:
        ValueError: a window sees no pixel.
    """
    spans, counts = [], []
    for pixels, count, side, step, border in zip(extent, out, size, stride, padding, strict=True):
        begins = [i * step - border for i in range(count)]
        spans.append(tuple((max(0, b), min(b + side, pixels)) for b in begins))
        edge = border if count_padding else 0
        counts.append(tuple(min(b + side, pixels + edge) - max(b, -edge) for b in begins))
    return _checked(Windows(spans[0], spans[1], counts[0], counts[1]), extent, out)


def adaptive(extent: Size, out: Size) -> Windows:
    """Windows that tile the image: output ``i`` of ``n`` over ``e`` pixels sees ``i e // n`` to
    ``ceil((i + 1) e / n)``, as in ``torch.nn.AdaptiveAvgPool2d``."""
    spans = [
        tuple((i * pixels // count, -(-(i + 1) * pixels // count)) for i in range(count))
        for pixels, count in zip(extent, out, strict=True)
    ]
    counts = [tuple(end - begin for begin, end in axis) for axis in spans]
    return _checked(Windows(spans[0], spans[1], counts[0], counts[1]), extent, out)


def _checked(windows: Windows, extent: Size, out: Size) -> Windows:
    if not windows.rows or not windows.columns:
        raise ValueError(f"a pool has no output: {list(out)} of {list(extent)} pixels")
    if any(begin >= end for begin, end in (*windows.rows, *windows.columns)):
        raise ValueError(f"a window of {list(out)} sees none of {list(extent)} pixels")
    return windows
