"""Files of PyTorch: whatever wraps a network's names, whatever lies beside them, nothing runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interchange_cases import ONE, State, assert_same, drawn
from safetensors.torch import save_file
from torch import nn

from alexsim.errors import InterchangeError
from alexsim.interchange.convert import Imported, imported
from alexsim.interchange.layout import to_plain
from alexsim.interchange.module import plain_module

STATE = drawn(ONE)
PLAIN = to_plain(ONE, STATE)
OTHER = {name: 2 * tensor for name, tensor in PLAIN.items()}
SAID = "only names and shapes were checked: a state_dict has no norms, pools or order"
BESIDE: dict[str, Any] = {
    "epoch": 5,
    "arch": "one",
    "best": np.float64(0.5),
    "history": [np.float32(1), (2, None)],
    "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 1.0}]},
    "lr_scheduler": {"last_epoch": 5},
}


def read(path: Path, value: object, **options: Any) -> Imported:
    torch.save(value, path)
    return imported(path, ONE, **options)


def behind(prefix: str, state: State = PLAIN) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


words = st.sampled_from(
    ["model", "module", "net", "network", "_orig_mod", "state_dict", "weights", "ema", "a b", "0"]
)


@given(keys=st.lists(words, max_size=3), prefix=st.lists(words, max_size=3), data=st.data())
@settings(max_examples=60, deadline=None)
def test_names_are_read_behind_any_keys_and_prefix(
    keys: list[str], prefix: list[str], data: st.DataObject, tmp_path_factory
) -> None:
    path = tmp_path_factory.getbasetemp() / data.draw(
        st.sampled_from(["w.pt", "w.pth.tar", "w.ckpt", "w.bin", "w", "w.safetensors"])
    )
    value: Any = behind("".join(f"{word}." for word in prefix))
    for key in reversed(keys):
        value = {key: value}
    beside = data.draw(st.booleans()) and keys[:1] != []
    if beside:
        value |= BESIDE
    torch.save(value, path, _use_new_zipfile_serialization=data.draw(st.booleans()))
    found = imported(path, ONE)
    assert_same(dict(found.state), STATE)
    where = ".".join([*keys, *prefix])
    assert (f"names were under {where!r}" in found.changes) == bool(where)
    left_out = "left out: epoch, arch, best, history and 2 more"
    assert found.notes == ((left_out, SAID) if beside else (SAID,))


def test_wrappers_within_names_and_other_types(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    half = {name.replace(".w", ".module.w"): tensor.double() for name, tensor in PLAIN.items()}
    assert_same(dict(read(path, behind("_orig_mod.", half)).state), STATE)
    apart: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in PLAIN.items():
        layer, kind = name.split(".")
        apart.setdefault(layer, {})[kind] = nn.Parameter(tensor)
    assert_same(dict(read(path, {"params": apart}).state), STATE)
    save_file(behind("model."), path)
    assert_same(dict(imported(path, ONE).state), STATE)


@pytest.mark.parametrize(
    ("value", "taken", "other"),
    [
        ({"state_dict": PLAIN, "state_dict_ema": OTHER}, "state_dict", "state_dict_ema"),
        ({"ema": OTHER, "model": PLAIN}, "model", "ema"),
        ({"state_dict": behind("ema_net.", OTHER) | behind("net.")},
         "state_dict.net", "state_dict.ema_net"),
        ({"a": PLAIN, "b": OTHER}, "a", "b"),
        ({"model": behind("module."), "model_ema": behind("module.", OTHER)},
         "model.module", "model_ema"),
        ({"grads": OTHER, "optimizer": {"momentum": OTHER}, "w": PLAIN}, "w", "grads"),
    ],
)  # fmt: skip
def test_of_several_networks_averages_come_last_and_a_key_takes_them(
    value: dict[str, Any], taken: str, other: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.ckpt"
    found = read(path, value)
    assert_same(dict(found.state), STATE)
    assert f"names were under {taken!r}" in found.changes
    assert f"under '{other}" in found.notes[0]
    assert "--key takes them" in found.notes[0]
    assert found.notes[1:] == (SAID,)
    averaged = dict(read(path, value, key=other).state)
    assert all(torch.equal(averaged[name], 2 * tensor) for name, tensor in STATE.items())
    with pytest.raises(InterchangeError, match=f"under 'x', but under .*'{taken}'"):
        imported(path, ONE, key="x")


def test_what_lies_beside_the_prefix_is_left_out_aloud(tmp_path: Path) -> None:
    beside = {"loss.weight": torch.ones(3), "metric.count": torch.tensor(1)}
    found = read(tmp_path / "w.ckpt", {"state_dict": behind("model.") | beside, "epoch": 1})
    assert_same(dict(found.state), STATE)
    assert found.notes[0] == "left out: state_dict.loss, state_dict.metric, epoch"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([1, 2], "no state_dict but a list"),
        ({}, "no state_dict but a dict"),
        (torch.ones(2), "no state_dict but a Tensor"),
        ({"state_dict": 3}, "no state_dict but a dict of state_dict"),
        ({"epoch": 3}, "no state_dict but a dict of epoch"),
        ({"backbone.0.weight": torch.ones(2)},
         r"one-column: no name ends in conv1.weight \(has: backbone.0.weight\)"),
        ({"m": {k: v for k, v in PLAIN.items() if k != "fc3.bias"}},
         "does not fit one-column: it has conv1.weight under 'm', but no fc3.bias"),
        ({f"{'head' if 'fc' in k else 'body'}.{k}": v for k, v in PLAIN.items()},
         "has conv1.weight under 'body', but no fc3.weight, which is under 'head'"),
        ({"m": PLAIN | {"norm.weight": torch.ones(2)}}, "one-column, which has no norm.weight"),
        (PLAIN | {"fc3": {"bias": torch.ones(7)}}, "holds two tensors of the name fc3.bias"),
        (PLAIN | {"conv1.module.bias": torch.ones(4)}, "which has no conv1.module.bias"),
        (PLAIN | {"conv1.bias": torch.zeros(4, dtype=torch.int8)},
         "conv1.bias is no tensor of real numbers but a torch.int8"),
        (PLAIN | {"count": torch.tensor(3)}, "count is no tensor of real numbers but a torch.int"),
        (PLAIN | {"fc3.bias": torch.ones(7, device="meta")}, "fc3.bias is no tensor of real"),
        (PLAIN | {"fc3.bias": torch.ones(7).to_sparse()}, "fc3.bias is no tensor of real"),
    ],
)  # fmt: skip
def test_what_is_no_state_dict_of_the_network(value: object, says: str, tmp_path: Path) -> None:
    with pytest.raises(InterchangeError, match=says) as caught:
        read(tmp_path / "w.pt", value)
    assert "\n" not in str(caught.value)


class Runs:
    """What a hostile pickle is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_never_runs(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "w.ckpt"
    for value in (
        PLAIN | {"hyper": Runs(tmp_path / "ran")},
        Runs(tmp_path / "ran"),
        plain_module(ONE),
        {"state_dict": PLAIN, "place": tmp_path},
    ):
        for zipped in (True, False):
            torch.save(value, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(InterchangeError, match=r"more than tensors \([\w.]+\)") as caught:
                imported(path, ONE)
            assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    assert not recwarn.list


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty: no file of torch.save, safetensors or Caffe"),
        (b"\x1f\x8b\x08\0", "is packed with gzip"),
        (b"\x89HDF\r\n\x1a\n", "is HDF5"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"<!DOCTYPE html>", "is HTML or XML"),
        (b"x" * 257 + b"ustar\x0000", "is a tar archive"),
        (b"anything else", "is no file of torch.save, safetensors or Caffe"),
    ],
)
def test_files_of_other_kinds_are_called_what_they_are(
    data: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(InterchangeError, match=says):
        imported(tmp_path / "w.pt", ONE)
    with pytest.raises(InterchangeError, match=r"cannot read .*: Is a directory"):
        imported(tmp_path, ONE)


@given(data=st.binary(max_size=200), head=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\n"]))
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_refused_in_one_line(
    data: bytes, head: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(head + data)
    with pytest.raises(InterchangeError) as caught:
        imported(path, ONE)
    assert "\n" not in str(caught.value)
