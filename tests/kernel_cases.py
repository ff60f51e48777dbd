"""What the kernels' tests share: tensors with gaps around them, poisoned results, errors."""

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAN = float("nan")


def images(*shape: int, scale: float = 1.0) -> torch.Tensor:
    """Random, channels-last, float32."""
    made = scale * torch.randn(shape)
    return made.to(DEVICE).contiguous(memory_format=torch.channels_last)


def poisoned(like: torch.Tensor) -> torch.Tensor:
    """NaN everywhere, a slice of a wider block whose other channels must stay as they are."""
    n, c, *extents = like.shape
    block = torch.full((n, *extents, c + 3), NAN, device=like.device, dtype=like.dtype)
    return block[..., 2 : 2 + c].permute(0, 3, 1, 2)


def around(slice_of_block: torch.Tensor) -> torch.Tensor:
    """What lies beside the channels of a poisoned tensor."""
    n, c, *extents = slice_of_block.shape
    strides = slice_of_block.stride()
    return torch.as_strided(
        slice_of_block, (n, c + 3, *extents), strides, slice_of_block.storage_offset() - 2
    )[:, [0, 1, -1]]


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is wanted; NaN if anything is NaN."""
    difference = (found.detach().cpu().double() - wanted.detach().cpu()).norm()
    return float(difference / wanted.detach().cpu().norm())
