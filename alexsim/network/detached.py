"""What learns nothing, as no gradient comes back to it."""

from __future__ import annotations

from alexsim.network.network import Network


def without_cost(network: Network) -> frozenset[str]:
    """Layers from which no gradient's way leads to a cost: something detaches them."""
    if not any(layer.stops_grad for layer in network.layers):
        return frozenset()
    leads = {head.name for head in network.heads}
    for index in range(len(network.layers) - 1, -1, -1):
        if network.layers[index].name in leads and not network.layers[index].stops_grad:
            leads.update(network.inputs_of(index))
    return frozenset(layer.name for layer in network.layers) - leads


def learning(network: Network, trained: frozenset[str]) -> frozenset[str]:
    """Those of the trained layers whose parameters a cost depends on."""
    lost = without_cost(network)
    if not lost:
        return trained
    return frozenset(name for name in trained if not network.using({name}) <= lost)
