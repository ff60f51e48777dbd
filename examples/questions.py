"""How long, how much memory, where do the FLOPs go: of a PyTorch module, in Python.

``python examples/questions.py`` prints three answers.
"""

from __future__ import annotations

import resnet

import alexsim
from alexsim.ledger.tables import flop_table, memory_table
from alexsim.machine.machine import load_machine
from alexsim.plan.planner import plan
from alexsim.simulate.simulator import on_machine

net = alexsim.from_torch(resnet.model(), input_shape=(3, 224, 224), name="ResNet-50")

table = flop_table(net)
heaviest = max(table.layers, key=lambda layer: layer.flop)
print(f"{table.training_flop / 1e9:.2f} GFLOP per image; most in {heaviest.name}")

step = plan(net, batch_size=256, policy="pytorch", optimizer="sgd")
(card,) = memory_table(step)
print(f"batch 256 takes {card.total_bytes / 2**30:.1f} GiB in eager PyTorch")

four = plan(net, batch_size=256, partition="replicas", gpus=4, optimizer="sgd")
simulation = on_machine(four.spec, load_machine("a100x4"))
low, high = simulation.step_interval.low, simulation.step_interval.high
print(
    f"a step of 256 images takes {1e3 * simulation.step_s:.0f} ms on four A100s"
    f" (90 %: {1e3 * low:.0f} to {1e3 * high:.0f})"
)
