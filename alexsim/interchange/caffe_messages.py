"""The few messages of Caffe's files that a chain of layers needs (``caffe.proto`` of BVLC Caffe,
and ``raw_data`` of NVIDIA's).

They are described here, field by field, and made when they are first used: the package
``protobuf`` is optional. ``data`` is packed floats, which lie in a file as bytes do; as bytes they
become arrays without passing through Python's numbers.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexsim.errors import InterchangeError

Floats = NDArray[np.float32]

# name, a star if repeated, type, number, default. ``layers`` are those before 2014 (V1).
_MESSAGES = """
BlobShape: dim* int64 1
BlobProto: num int32 1, channels int32 2, height int32 3, width int32 4, data* bytes 5,
    shape BlobShape 7, double_data* bytes 8, raw_data_type int32 10, raw_data bytes 12
UnpackedBlob: data* float 5, double_data* double 8
InputParameter: shape* BlobShape 1
ConvolutionParameter: num_output uint32 1, pad uint32 3, kernel_size uint32 4, group uint32 5,
    stride uint32 6, kernel_h uint32 11, kernel_w uint32 12
InnerProductParameter: num_output uint32 1
PoolingParameter: pool PoolMethod 1, kernel_size uint32 2, stride uint32 3
LRNParameter: local_size uint32 1 5, alpha float 2 1, beta float 3 0.75, norm_region NormRegion 4,
    k float 5 1
DropoutParameter: dropout_ratio float 1
PowerParameter: scale float 2
ReshapeParameter: shape BlobShape 1
LayerParameter: name string 1, type string 2, bottom* string 3, top* string 4, blobs* BlobProto 7,
    convolution_param ConvolutionParameter 106, dropout_param DropoutParameter 108,
    inner_product_param InnerProductParameter 117, lrn_param LRNParameter 118,
    pooling_param PoolingParameter 121, power_param PowerParameter 122,
    reshape_param ReshapeParameter 133,
    input_param InputParameter 143
V1LayerParameter: name string 4, type int32 5, blobs* BlobProto 6, lrn_param LRNParameter 18
NetParameter: name string 1, layers* V1LayerParameter 2, layer* LayerParameter 100
"""
_RAW = ("<f8", "<f4", "<f2")
"""NVCaffe's types of real numbers; weights are of no other type."""
_ENUMS = {"PoolMethod": ("MAX", "AVE"), "NormRegion": ("ACROSS_CHANNELS", "WITHIN_CHANNEL")}


@cache
def _classes() -> dict[str, Any]:
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        need = 'Caffe\'s files need a package: pip install "alexsim[caffe]"'
        raise InterchangeError(need) from None

    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for name, words in _ENUMS.items():
        values = file.enum_type.add(name=name).value
        for number, word in enumerate(words):
            values.add(name=word, number=number)
    texts = [line.split(": ") for line in re.sub(r",\s+", ", ", _MESSAGES).strip().splitlines()]
    for name, fields in texts:
        message = file.message_type.add(name=name)
        for field in fields.split(", "):
            _add_field(message, *field.split())
    # In a separate pool: another library may know the same names.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))
        for name, _ in texts
    }


def _add_field(message: Any, name: str, kind: str, number: str, default: str = "") -> None:
    field = message.field.add(name=name.rstrip("*"), number=int(number))
    field.label = field.LABEL_REPEATED if name.endswith("*") else field.LABEL_OPTIONAL
    if kind[0].islower():
        field.type = getattr(field, f"TYPE_{kind.upper()}")
        field.options.packed = name.endswith("*") and kind == "int64"
    else:
        field.type = field.TYPE_ENUM if kind in _ENUMS else field.TYPE_MESSAGE
        field.type_name = f".caffe.{kind}"
    if default:
        field.default_value = default


def new_message(name: str) -> Any:
    """An empty message of that name.

    Raises:
        InterchangeError: there is no package ``protobuf``.
    """
    return _classes()[name]()


def parsed(data: bytes, message: str, where: str) -> Any:
    """A message of that name.

    Raises:
        InterchangeError: the bytes are no such message, or there is no package ``protobuf``.
    """
    result = new_message(message)
    from google.protobuf.message import DecodeError

    try:
        result.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise InterchangeError(f"{where} is no {message} of Caffe, or is cut off") from error
    return result


def text_of(message: Any) -> str:
    """As a ``.prototxt``."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(message))


def fill_blob(blob: Any, values: Floats) -> None:
    """Put an array into a ``BlobProto``."""
    blob.shape.dim.extend(values.shape)
    blob.data.append(np.ascontiguousarray(values, "<f4").tobytes())


def blob_values(blob: Any, where: str) -> Floats:
    """A ``BlobProto`` as an array; files before 2014 have four extents, of which the first are 1.

    Raises:
        InterchangeError: it has no shape, another number of values, or values of another type.
    """
    legacy = (blob.num, blob.channels, blob.height, blob.width)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else legacy
    if not blob.HasField("shape") and not any(legacy):
        raise InterchangeError(f"{where} has no shape")
    kind, data = _numbers(blob, where)
    # In Python's integers: a hostile shape may be larger than an array's size can be.
    size = 1
    for extent in shape:
        size *= max(extent, 0)
    if len(data) != size * np.dtype(kind).itemsize:
        raise InterchangeError(f"{where} has {len(data):,} bytes, not those of shape {shape}")
    return np.frombuffer(data, kind).astype(np.float32).reshape(shape)


def _numbers(blob: Any, where: str) -> tuple[str, bytes]:
    """The type and the bytes of a blob's numbers, in whatever field they stand."""
    if blob.HasField("raw_data"):
        kind = blob.raw_data_type
        if kind not in range(len(_RAW)):
            raise InterchangeError(
                f"{where}: NVCaffe's raw_data is of type {kind}, not one of 0 (double), 1 (float),"
                " 2 (half)"
            )
        return _RAW[kind], blob.raw_data
    if blob.double_data or blob.data:
        kind, chunks = ("<f8", blob.double_data) if blob.double_data else ("<f4", blob.data)
        return kind, b"".join(chunks)
    # One field per number, as writers other than Caffe's may have it.
    apart = new_message("UnpackedBlob")
    apart.ParseFromString(blob.SerializeToString())
    numbers = apart.double_data or apart.data
    if not numbers:
        raise InterchangeError(f"{where} has a shape, but no numbers")
    return "<f8", np.array(numbers, "<f8").tobytes()
