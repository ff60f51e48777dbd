"""3 x 3 convolutions by Winograd's method: fewer multiplications, as matrix products.

F(m, r) computes ``m`` outputs of an ``r``-tap filter with ``m + r - 1`` multiplications (Winograd
1980; for convolutional nets Lavin and Gray 2016): filter, input and output are transformed by small
constant matrices G, B and A. In two dimensions a tile of 5 x 5 outputs takes 49 multiplications
where the direct method takes 225; on 13 x 13 maps, transforms and partial tiles included, a third
less time. Rounding grows about fivefold, to some 3e-6 of the result's norm.

Values lie as ``[height, width, images, channels]`` here, so that each transform is one matrix
product over rows or columns and everything in between is a batch of products over channels.
"""

from __future__ import annotations

from functools import cache

import torch

from alexsim.execute.aten.chunks import chunks
from alexsim.network.layers import Convolution
from alexsim.plan.backends.aten import WINOGRAD_OUTPUTS, WINOGRAD_TAPS

Tensor = torch.Tensor

_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5)
"""Where the polynomials are evaluated, beside infinity: powers of two keep constants small."""
_PRODUCTS = WINOGRAD_OUTPUTS + WINOGRAD_TAPS - 1


def cook_toom(outputs: int, taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """A' ``[m, q]``, G ``[q, r]`` and B' ``[q, q]`` of F(m, r), float64, with ``q = m + r - 1``.

    The transposed Toom-Cook product: Lagrange interpolation at ``q - 1`` points and infinity.
    """
    products = outputs + taps - 1
    points = _POINTS[: products - 1]
    a_t = torch.zeros(outputs, products, dtype=torch.float64)
    g = torch.zeros(products, taps, dtype=torch.float64)
    b_t = torch.zeros(products, products, dtype=torch.float64)
    for j, point in enumerate(points):
        others = [other for other in points if other != point]
        scale = 1.0
        for other in others:
            scale *= point - other
        a_t[:, j] = torch.tensor([point**i for i in range(outputs)], dtype=torch.float64)
        g[j] = torch.tensor([point**i / scale for i in range(taps)], dtype=torch.float64)
        b_t[j, : products - 1] = _polynomial(others)
    a_t[-1, -1] = g[-1, -1] = 1
    b_t[-1] = _polynomial(points)
    # Exact powers of two even the sizes of B and G out, and with them the rounding.
    size = torch.exp2(torch.round(torch.log2(b_t.abs().amax(1).sqrt())))
    return a_t, g * size[:, None], b_t / size[:, None]


def _polynomial(roots: tuple[float, ...] | list[float]) -> Tensor:
    """Coefficients of the monic polynomial with these roots, lowest power first."""
    coefficients = torch.ones(1, dtype=torch.float64)
    for root in roots:
        longer = torch.zeros(len(coefficients) + 1, dtype=torch.float64)
        longer[1:] += coefficients
        longer[:-1] -= root * coefficients
        coefficients = longer
    return coefficients


@cache
def _constants(width: int, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Transforms of rows (7 at a time) and of all the tiles of a row of ``width`` at once."""
    a_t, g, b_t = cook_toom(WINOGRAD_OUTPUTS, WINOGRAD_TAPS)
    tiles, border = -(-width // WINOGRAD_OUTPUTS), WINOGRAD_TAPS // 2
    b_columns = torch.zeros(_PRODUCTS, tiles, width, dtype=torch.float64)
    a_columns = torch.zeros(width, _PRODUCTS, tiles, dtype=torch.float64)
    for tile in range(tiles):
        start = tile * WINOGRAD_OUTPUTS
        for tap in range(_PRODUCTS):
            column = start + tap - border
            if 0 <= column < width:
                b_columns[:, tile, column] = b_t[:, tap]
        for output in range(min(WINOGRAD_OUTPUTS, width - start)):
            a_columns[start + output, :, tile] = a_t[output]
    matrices = {
        "a_t": a_t,
        "a": a_t.t(),
        "b_t": b_t,
        "gg": torch.kron(g, g),
        "gg_t": torch.kron(g, g).t(),
        "b_columns": b_columns.view(-1, width),
        "a_columns": a_columns.view(width, -1),
        "a_columns_t": a_columns.view(width, -1).t(),
    }
    return {name: value.to(device, dtype).contiguous() for name, value in matrices.items()}


class _Tiles:
    """The scratch of one pass, and the transforms between maps and tiles."""

    def __init__(self, x: Tensor, outputs: int, images: int) -> None:
        self._inputs, self._outputs = x.shape[1], outputs
        self.height, self.width = x.shape[2:]
        self.c = _constants(self.width, x.dtype, x.device)
        self.rows = -(-self.height // WINOGRAD_OUTPUTS)
        self._tiles = -(-self.width // WINOGRAD_OUTPUTS)
        self._most, self._like = images, x
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, images: int, *shape: int) -> Tensor:
        """Scratch of that name for a chunk; zero when first taken, then as it was left."""
        size = 1
        for extent in shape:
            size *= extent
        if name not in self._kept:
            self._kept[name] = self._like.new_empty(size // images * self._most).zero_()
        return self._kept[name][:size].view(shape)

    def load(self, x: Tensor) -> Tensor:
        """Input maps with a zero border above and below, ``[padded height, width, n, C]``."""
        n, border = x.shape[0], WINOGRAD_TAPS // 2
        tall = self.rows * WINOGRAD_OUTPUTS + WINOGRAD_TAPS - 1
        padded = self.take("padded", n, tall, self.width, n, self._inputs)
        padded[:border].zero_()
        padded[border + self.height :].zero_()
        padded[border : border + self.height].copy_(x.permute(2, 3, 0, 1))
        return padded

    def maps(self, n: int) -> Tensor:
        """Output maps, rows rounded up to whole tiles, ``[rows, width, n, C_out]``."""
        tall = self.rows * WINOGRAD_OUTPUTS
        return self.take("maps", n, tall, self.width, n, self._outputs)

    def input_tiles(self, padded: Tensor, row: int) -> Tensor:
        """One row of tiles, transformed: ``[49, tiles * n, C]``."""
        n, channels, q = padded.shape[2], self._inputs, _PRODUCTS
        start = row * WINOGRAD_OUTPUTS
        once = self.take("input rows", n, q, self.width, n * channels)
        torch.mm(self.c["b_t"], padded[start : start + q].view(q, -1), out=once.view(q, -1))
        twice = self.take("input tiles", n, q, q * self._tiles, n * channels)
        torch.bmm(self.c["b_columns"].expand(q, -1, -1), once, out=twice)
        return twice.view(q * q, self._tiles * n, channels)

    def output_tiles(self, n: int) -> Tensor:
        """Scratch for one row of output tiles: ``[49, tiles * n, C_out]``."""
        q = _PRODUCTS
        return self.take("output tiles", n, q * q, self._tiles * n, self._outputs)

    def output_rows(self, n: int) -> Tensor:
        """Scratch for output tiles whose columns are done: ``[7, width, n * C_out]``."""
        return self.take("output rows", n, _PRODUCTS, self.width, n * self._outputs)

    def to_maps(self, tiles: Tensor, out: Tensor) -> None:
        """Output tiles to five rows of maps."""
        q, n = _PRODUCTS, out.shape[2]
        once = self.output_rows(n)
        torch.bmm(self.c["a_columns"].expand(q, -1, -1), tiles.view(q, -1, once.shape[2]), out=once)
        torch.mm(self.c["a_t"], once.view(q, -1), out=out.view(WINOGRAD_OUTPUTS, -1))

    def from_maps(self, maps: Tensor, out: Tensor) -> None:
        """The transpose of ``to_maps``, for gradients."""
        q, n = _PRODUCTS, maps.shape[2]
        once = self.output_rows(n)
        torch.mm(self.c["a"], maps.view(WINOGRAD_OUTPUTS, -1), out=once.view(q, -1))
        columns = self.c["a_columns_t"].expand(q, -1, -1)
        torch.bmm(columns, once, out=out.view(q, -1, once.shape[2]))


def _correlate(
    x: Tensor, taps: Tensor, bias: Tensor | None, y: Tensor, size: int, add: bool
) -> None:
    """``y (+)= x`` correlated with ``taps`` (``[3, 3, C, C_out]``), border of one zero."""
    tiles = _Tiles(x, y.shape[1], size)
    c = tiles.c
    filters = taps.new_empty(_PRODUCTS**2, *taps.shape[2:])
    torch.mm(c["gg"], taps.reshape(WINOGRAD_TAPS**2, -1), out=filters.view(_PRODUCTS**2, -1))
    for part in chunks(x.shape[0], size):
        padded, maps = tiles.load(x[part]), tiles.maps(part.stop - part.start)
        products = tiles.output_tiles(part.stop - part.start)
        for row in range(tiles.rows):
            torch.bmm(tiles.input_tiles(padded, row), filters, out=products)
            start = row * WINOGRAD_OUTPUTS
            tiles.to_maps(products, maps[start : start + WINOGRAD_OUTPUTS])
        target = y[part].permute(2, 3, 0, 1)
        if bias is not None:
            torch.add(maps[: tiles.height], bias, out=target)
        else:
            (target.add_ if add else target.copy_)(maps[: tiles.height])


def winograd_forward(x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, size: int) -> None:
    """Write the convolution of ``x`` into ``y``."""
    _correlate(x, weight.permute(2, 3, 1, 0), bias, y, size, add=False)


def winograd_grad_input(weight: Tensor, dy: Tensor, dx: Tensor, size: int, *, add: bool) -> None:
    """The gradient of the input is ``dy`` correlated with the turned filters."""
    _correlate(dy, weight.flip(2, 3).permute(2, 3, 0, 1), None, dx, size, add=add)


def winograd_grad_weight(
    layer: Convolution, x: Tensor, dy: Tensor, dweight: Tensor, dbias: Tensor | None, size: int
) -> None:
    """Write the gradients of weights and biases, summed over the images."""
    tiles = _Tiles(x, layer.filters, size)
    total = x.new_zeros(_PRODUCTS**2, x.shape[1], layer.filters)
    for part in chunks(x.shape[0], size):
        padded, maps = tiles.load(x[part]), tiles.maps(part.stop - part.start)
        maps[tiles.height :].zero_()
        maps[: tiles.height].copy_(dy[part].permute(2, 3, 0, 1))
        products = tiles.output_tiles(part.stop - part.start)
        for row in range(tiles.rows):
            start = row * WINOGRAD_OUTPUTS
            tiles.from_maps(maps[start : start + WINOGRAD_OUTPUTS], products)
            total.baddbmm_(tiles.input_tiles(padded, row).transpose(1, 2), products)
    taps = torch.mm(tiles.c["gg_t"], total.view(_PRODUCTS**2, -1))
    dweight.permute(2, 3, 1, 0).copy_(taps.view(3, 3, x.shape[1], layer.filters))
    if dbias is not None:
        torch.sum(dy, (0, 2, 3), out=dbias)
