"""Operators of traced modules: their products as cuBLAS does them, and their bytes."""

from __future__ import annotations

from alexsim.costs.cost import Cost, Precision, Work
from alexsim.costs.elementwise import product_traits
from alexsim.costs.features import product_features
from alexsim.costs.gemm import gemm
from alexsim.machine.device import Device
from alexsim.network.layers import Operator, Product
from alexsim.plan.plan import OpKind


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


def product_costs(device: Device, work: Work, precision: Precision) -> list[Cost]:
    """All products of an op, one after another.

    What both matrices are an image's of is a batch of products; else the rows of all images lie one
    behind the other in one, and the gradient of the second matrix sums over them. A kernel may keep
    what lies between two products to itself (attention's scores), so that only the op's operands
    need cross memory: the least time sees to these.
    """
    costs, traits = [], product_traits(device, work.kind, precision)
    every = products(work)
    whole = sum(rows * depth * columns * times for rows, depth, columns, times, *_ in every)
    for product in every:
        rows, depth, columns, times = product[:4]
        share = rows * depth * columns * times / whole
        if product.per_image:
            times *= work.batch_size
        elif work.kind == OpKind.GRAD_WEIGHT:
            rows, depth = depth, rows * work.batch_size
        else:
            rows *= work.batch_size
        seconds, limit = gemm(
            device, rows, columns, depth, batches=times, split=True, vectors=True,
            operands_move=False, precision=precision,
        )  # fmt: skip
        learned = product_features(
            device.basis, work.kind, (rows, columns, depth), times,
            op="bmm" if times > 1 else "linear", precision=precision,
        )  # fmt: skip
        flop = share * work.count.flop
        costs.append(Cost(seconds, limit, traits, flop=flop, learned=learned))
    return costs
