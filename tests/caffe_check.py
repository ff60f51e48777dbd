"""Run what ``alexsim model export`` writes for Caffe in OpenCV, which has an importer of its own.

    python tests/caffe_check.py [EDITION ...]

Needs opencv-python-headless 4. Prints a line per network; exits with 1 if one differs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from interchange_cases import EVERY
from torch.nn import functional as F

from alexsim.editions.load import load_network
from alexsim.interchange.caffe import caffe_files
from alexsim.interchange.module import AlexNet
from alexsim.network.network import Network


def differences(network: Network) -> tuple[float, float]:
    """Largest of the logits, over the largest logit, and of the probabilities."""
    torch.manual_seed(1)
    model = AlexNet(network).eval()
    with torch.no_grad():
        # Deviations that keep values near 1 from layer to layer, so that every norm has its say.
        for parameter in model.parameters():
            inputs = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.normal_(0, (2 / inputs) ** 0.5 if parameter.ndim > 1 else 0.1)
        images = 2 * torch.randn(2, *network.input_shape)
        logits = model(images)
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "net.prototxt", Path(folder) / "net.caffemodel"
        data, text = caffe_files(network, model.state_dict(), ("a comment",))
        paths[0].write_text(text)
        paths[1].write_bytes(data)
        net = cv2.dnn.readNetFromCaffe(str(paths[0]), str(paths[1]))
    last = next(layer.name for layer in reversed(network.layers) if "fc" in layer.name)
    side = int(text.split("dim: ")[3].split()[0])
    over = side - network.input_shape[1]
    net.setInput(F.pad(images, (0, over, 0, over)).flip(1).contiguous().numpy())
    theirs, chances = (out.reshape(len(images), -1) for out in net.forward([last, "prob"]))
    relative = np.abs(theirs - logits.numpy()).max() / logits.abs().max().item()
    return float(relative), float(np.abs(chances - logits.softmax(1).numpy()).max())


def main() -> int:
    """Check one network of every layer, and those named on the command line or three AlexNets."""
    names = sys.argv[1:] or ["alexnet-caffe", "alexnet-2012", "alexnet-paper+no-exchange"]
    wrong = 0
    for network in (EVERY, *map(load_network, names)):
        logits, chances = differences(network)
        print(f"{network.name}: logits {logits:.1e} of the largest, probabilities {chances:.1e}")
        wrong += max(logits, chances) > 1e-5
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
