"""The files of a fit, as ``alexsim.costs.correction.load_correction`` reads them."""

from __future__ import annotations

import io
from dataclasses import asdict

import numpy as np

from alexsim.costs.correction import Correction
from alexsim.costs.features import NAMES
from alexsim.costs.trees import Forests
from alexsim.strict_json import json_text


def correction_bytes(correction: Correction) -> tuple[bytes, str]:
    """As the files ``fit.npz`` and ``fit.json`` that are loaded."""
    assert correction.covariance is not None
    lower = np.tril_indices(len(correction.traits))
    arrays = {
        "traits": np.array(correction.traits),
        "coefficients": np.array([correction.coefficients[t] for t in correction.traits], "f4"),
        "covariance": correction.covariance[lower].astype("f4"),
        **forest_arrays(correction.forests),
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue(), json_text(asdict(correction.card), indent=1) + "\n"


def forest_arrays(forests: Forests) -> dict[str, np.ndarray]:
    """As the arrays that ``alexsim.costs.trees.forests_from`` reads."""
    arrays = {f"{kind}.names": np.array(names) for kind, names in NAMES.items()}
    for (kind, realm), forest in forests.items():
        arrays |= {
            f"{kind}.{realm}.bias": np.array(forest.bias),
            f"{kind}.{realm}.feature": forest.feature.astype(np.uint8),
            f"{kind}.{realm}.threshold": forest.threshold.astype(np.float32),
            f"{kind}.{realm}.value": forest.value.astype(np.float32),
            f"{kind}.{realm}.low": forest.low.astype(np.float32),
            f"{kind}.{realm}.high": forest.high.astype(np.float32),
        }
    return arrays
