"""Operators of traced modules: their products as cuBLAS does them, and their bytes."""

from __future__ import annotations

from alexsim.machine.device import Device
from alexsim.network.layers import Operator, Product
from alexsim.plan.plan import OpKind
from alexsim.simulate.costs.cost import Cost, Limit, Precision, Work
from alexsim.simulate.costs.elementwise import product_traits
from alexsim.simulate.costs.gemm import gemm


def products(work: Work) -> tuple[Product, ...]:
    """Matrix products of an op, of one image; none where it is no operator's."""
    layer = work.part.layer
    if not isinstance(layer, Operator):
        return ()
    if work.kind in (OpKind.FORWARD, OpKind.GRAD_WEIGHT):
        return layer.products
    if work.kind == OpKind.GRAD_INPUT and layer.grad_products:
        return layer.grad_products[work.index]
    return ()


def product_cost(device: Device, work: Work, precision: Precision) -> Cost:
    """All products of an op, one after another.

    What both matrices are an image's of is a batch of products; else the rows of all images lie one
    behind the other in one, and the gradient of the second matrix sums over them. A kernel may keep
    what lies between two products to itself (attention's scores), so that only the op's operands
    need cross memory: the least time sees to these.
    """
    seconds, longest_s = 0.0, 0.0
    limit: Limit = "compute"
    for product in products(work):
        rows, depth, columns, times = product[:4]
        if product.per_image:
            times *= work.batch_size
        elif work.kind == OpKind.GRAD_WEIGHT:
            rows, depth = depth, rows * work.batch_size
        else:
            rows *= work.batch_size
        taken_s, limits = gemm(
            device, rows, columns, depth, batches=times, split=True, vectors=True,
            operands_move=False, precision=precision,
        )  # fmt: skip
        seconds += taken_s
        if taken_s > longest_s:
            longest_s, limit = taken_s, limits
    traits = product_traits(device, work.kind, precision)
    return Cost(seconds, limit, traits, flop=work.count.flop)
