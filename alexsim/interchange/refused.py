"""Why a module cannot be traced, in one line: where in the user's code, and what helps."""

from __future__ import annotations

import inspect
import io
import logging
import re
import sysconfig
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import torch
from torch import fx, nn

import alexsim
from alexsim.errors import NetworkError
from alexsim.network.layers import Shape

_NOT_THE_USERS = tuple(
    str(Path(path)) for path in (
        *torch.__path__, *alexsim.__path__, sysconfig.get_path("stdlib"),
    )
)  # fmt: skip
_INSTALLED = "site-packages"
_BY_VALUES = frozenset({
    "DataDependentOutputException", "DynamicOutputShapeException", "GuardOnDataDependentSymNode",
})  # fmt: skip
"""Classes of errors of what asks for a tensor's values."""
_OF_SHAPES = re.compile(
    r"\b(channels?|dim|dimensions?|[1-5]D|extent|height|width|resolution|shapes?|sizes?)\b", re.I
)
_FILE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*\n\s*(?P<code>[^\n]*)')
_LONGEST = 300
_ASKS = (
    "this asks for the values of a tensor, and a trace has shapes alone: give a module with one"
    " branch, or one number, fixed"
)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporter logs, warns of and prints: its errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def refuse_inputs(module: nn.Module) -> None:
    """Refuse a module that does not take one tensor.

    Raises:
        NetworkError: it needs none, or others too.
    """
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return
    needed = [
        p.name for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]  # fmt: skip
    taken = [p for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    if len(needed) > 1 or not taken:
        raise NetworkError(
            f"{type(module).__name__}.forward takes {', '.join(needed) or 'nothing'}: one tensor of"
            " images is read; give a module whose forward takes that alone, and has the rest"
        )


def why_not(module: nn.Module, input_shape: Shape, error: Exception, images: int) -> str:
    """What the exporter's error means.

    Args:
        module: that was traced.
        input_shape: of one image.
        error: PyTorch's, or the module's own.
        images: of the traced minibatch, a number of ours that its user never gave.
    """
    at = _place([
        (frame.filename, frame.lineno or 0, frame.line or "")
        for frame in traceback.extract_tb(error.__traceback__)
    ])  # fmt: skip
    begins = f"torch.export cannot trace {type(module).__name__}"
    if type(error).__name__ in _BY_VALUES:
        return f"{begins}: {at or 'forward'}: {_ASKS}"
    (text, *_) = str(error).strip().split("\n\n")
    # Of N images: [13, 3, 224, 224], 13x512.
    text = re.sub(rf"(?<=[\[(]){images}(?=[,\])x])", "N", " ".join(text.split()))
    if len(text) > _LONGEST:
        text = text[:_LONGEST].rpartition(" ")[0] + " ..."
    shape = "x".join(map(str, input_shape))
    hint = (
        " (the shape is of one image, without the batch: input_shape=(C, H, W), or NAME@CxHxW)"
        if _OF_SHAPES.search(text)
        else ""
    )
    where = f", {at}" if at else ""
    return f"{begins} with images of {shape}{where}: {type(error).__name__}: {text}{hint}"


def place_of(node: fx.Node) -> str:
    """Where the user's code makes a call: ``mine.py:19 (x = x.mean(0)): ``, or nothing."""
    trace = _FILE.finditer(node.meta.get("stack_trace") or "")
    at = _place([(call["file"], int(call["line"]), call["code"]) for call in trace])
    return f"{at}: " if at else ""


def refuse_by_values(nodes: Sequence[fx.Node]) -> None:
    """Refuse calls that make a number of a tensor, or whose result has a shape by values.

    Raises:
        NetworkError: names the place.
    """
    for node in nodes:
        value, at = node.meta.get("val"), place_of(node) or f"{node.name}: "
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            raise NetworkError(f"{at}{_ASKS}")
        if isinstance(value, torch.Tensor) and not all(type(n) is int for n in value.shape):
            raise NetworkError(
                f"{at}the shape of the result depends on the values of a tensor, so nothing of it"
                " can be counted: give a module that keeps a fixed number"
            )


def _place(frames: Sequence[tuple[str, int, str]]) -> str:
    """The last line of the user's own, or of a package that is not PyTorch."""
    theirs = [frame for frame in frames if _is_theirs(frame[0])]
    nearest = [frame for frame in theirs if _INSTALLED not in frame[0]] or theirs
    if not nearest:
        return ""
    file, line, code = nearest[-1]
    return f"{Path(file).name}:{line}" + (f" ({code.strip()})" if code else "")


def _is_theirs(file: str) -> bool:
    if not file.endswith(".py"):
        return False
    torch_or_ours = file.startswith(_NOT_THE_USERS[:-1])
    library = file.startswith(_NOT_THE_USERS[-1]) and _INSTALLED not in file
    return not (torch_or_ours or library)
