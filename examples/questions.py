"""How long, how much memory, where do the FLOPs go: of a PyTorch module, in Python.

``python examples/questions.py`` prints three answers.
"""

from __future__ import annotations

import resnet

import alexsim

net = alexsim.from_torch(resnet.model(), input_shape=(3, 224, 224), name="ResNet-50")

counted = alexsim.flops(net)
heaviest = counted.to_pandas("layers").nlargest(1, "flop")["name"].item()
print(f"{counted.training_flop / 1e9:.2f} GFLOP per image; most in {heaviest}")

(card,) = alexsim.memory(net, batch=256, policy="pytorch").devices
print(f"batch 256 takes {card.total_bytes / 2**30:.1f} GiB in eager PyTorch")

step = alexsim.simulate(net, machine="a100x4", batch=256)
low, high = step.step_s_interval
print(
    f"a step of 256 images takes {1e3 * step.step_s:.0f} ms on four A100s"
    f" (90 %: {1e3 * low:.0f} to {1e3 * high:.0f})"
)
