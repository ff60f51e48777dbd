"""Each of a module's outputs as a head of the network, with its cost."""

from __future__ import annotations

from collections.abc import Sequence

from alexsim.errors import NetworkError
from alexsim.interchange.mapped import Trace, Value, view
from alexsim.network.layers import SoftmaxCrossEntropy


def heads(mapping: Trace, weights: Sequence[float]) -> None:
    """Give every output its softmax and cost, the answer's last.

    Raises:
        NetworkError: an output does not come from the images, or is no logits as the answer's are.
    """
    ends: list[Value] = []
    calls = {call.node: call for call in mapping.exported.calls}
    names = mapping.exported.names
    for name, head in zip(names, mapping.exported.heads, strict=True):
        node = head
        call = calls.get(head)
        if call and call.target == "log_softmax" and call.arguments["dim"] % call.output.dim() == 1:
            # A cost that is the negative log-likelihood of these is the cross entropy of those.
            node = call.arguments["self"]
        value = mapping.read(node)
        if not isinstance(value, Value):
            raise NetworkError(f"output {name} of the module does not depend on its images")
        if ends and value.shape != ends[0].shape:
            raise NetworkError(
                f"the module returns {', '.join(names)}; output {name} is {value.shape}, its answer"
                f" {names[0]} {ends[0].shape}: only logits of the same classes have a cost; return"
                " no others, or a dict in which the answer is called 'logits'"
            )
        ends.append(value)
    for place, value in reversed(list(enumerate(ends))):
        name = f"{value.layer}.softmax" if place else "softmax"
        weight, layer = weights[place], value.layer
        if len(value.shape) > 1:
            # Of every pixel, or token: the same values, but no cost that can be trained here.
            layer = mapping.append(view(f"{value.layer}.dense_cost", layer, value.shape))
        mapping.append(SoftmaxCrossEntropy(name=name, inputs=(layer,), weight=weight))
