"""What of a network is only counted, in lines below a table."""

from __future__ import annotations

from alexsim.network.network import Network
from alexsim.network.not_run import WORKING, unsupported, unsupported_mac_share
from alexsim.simulate.simulation import Simulation


def counted_share(network: Network, simulation: Simulation) -> float:
    """Share of a simulated step's computing in operators that are only counted."""
    names = {layer for kind in unsupported(network) for layer in kind.layers}
    seconds = sum(op.seconds for op in simulation.ops)
    return sum(op.seconds for op in simulation.ops if op.layer in names) / (seconds or 1.0)


def not_run_lines(network: Network, simulation: Simulation | None = None) -> list[str]:
    """Operators without a kernel, how often and where; their share of the multiply-adds, and of a
    simulated step's computing."""
    every = unsupported(network)
    kinds = [kind for kind in every if not kind.views] or every
    if not kinds:
        return []
    lacking = [kind for kind in kinds if not kind.formula]
    shares = [f"{100 * unsupported_mac_share(network):.0f} % of the forward multiply-adds"]
    if simulation is not None:
        shares.append(f"{100 * counted_share(network, simulation):.0f} % of the computing")
    lines = [
        f"counted from their shapes, as there is no kernel here ({', '.join(shares)}):",
        *(
            f"  {kind.target} x {len(kind.layers)}, first {kind.layers[0]}"
            + ("" if kind.formula else ": NOT COUNTED, but for its bytes")
            for kind in kinds
        ),
        f"{WORKING} work; train, profile and model do not.",
    ]
    if lacking:
        lines.insert(
            0, f"FLOPs and times are too low: {len(lacking)} kind(s) of operators have no formula."
        )
    if simulation is not None:
        lines[-1] = "Their times are the roofline's: no published row has measured them."
    return lines
