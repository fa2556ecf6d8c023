"""Reads a pair of ncnn files, a .param text graph and its .bin of weights, as a list of convolutions.

The formats are those of ncnn's documentation and of its converter. Weights are stored as float32, or as float16 after
a tag. A graph that uses a convolution twice (for both frames, or both directions) holds its weights twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from model.errors import WeightsError

MAGIC = "7767517"  # first line of every .param
RAW, FLOAT16 = 0, 0x01306B47  # tags before a blob of weights: float32 follows, or float16 padded to four bytes
ARRAY = -23300  # parameter ids up to this are arrays: -23300 - id=count,value,...
FUSED, FUSED_SLOPE = 9, ARRAY - 10  # parameter ids of a convolution: its fused activation, and the slope of that
LEAKY = 2  # fused activation: leaky ReLU, one slope for all channels
MULTIPLY = 2  # operation id of a BinaryOp
CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise", "Deconvolution", "DeconvolutionDepthWise", "InnerProduct")


@dataclass
class NcnnLayer:
    """Holds one line of the graph, and the arrays that the .bin stores for it."""

    kind: str
    name: str
    bottoms: list[str]
    tops: list[str]
    params: dict[int, float]
    arrays: list[np.ndarray] = field(default_factory=list)

    def number(self, key: int, default: int = 0) -> int:
        """Returns an integer parameter, or the default if the line does not list it."""
        return int(self.params.get(key, default))


@dataclass
class Weights:
    """Holds the weights of a convolution, and of the layers applied to its result."""

    weight: np.ndarray  # torch's layout: (out,in,h,w), or (in,out,h,w) if transposed
    bias: np.ndarray | None
    transposed: bool
    beta: np.ndarray | None = None  # (out,), multiplied with the result (ResConv)
    slopes: list[np.ndarray] = field(default_factory=list)  # of the PReLUs after it: (out,), or (1,) for leaky ReLU


class _Blobs:
    """Reads the arrays of a .bin file one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0  # bytes read so far

    def _take(self, count: int, kind: str) -> np.ndarray:
        dtype = np.dtype(kind)
        size = count * dtype.itemsize
        if count < 0 or self.offset + size > len(self.data):
            raise WeightsError(f"the .bin ends after {len(self.data)} bytes, but its graph needs more")
        values = np.frombuffer(self.data, dtype, count, self.offset)
        self.offset += size
        return values

    def raw(self, count: int) -> np.ndarray:
        """Returns the next `count` float32 values."""
        return self._take(count, "<f4").astype(np.float32)

    def tagged(self, count: int) -> np.ndarray:
        """Returns the next `count` values as float32, of the type that the tag before them names."""
        tag = int(self._take(1, "<u4")[0])
        if tag == RAW:
            return self.raw(count)
        if tag != FLOAT16:
            raise WeightsError(f"weights stored as 0x{tag:08X}; only float32 and float16 can be read")
        values = self._take(count, "<f2").astype(np.float32)
        self.offset += -2 * count % 4
        return values


def read_layers(param: bytes, weights: bytes) -> list[NcnnLayer]:
    """Returns the layers of a graph in order, with their arrays. Raises WeightsError if one of the files is damaged."""
    try:
        lines = param.decode("ascii").split("\n")
        layers = [_parse_line(line.split()) for line in lines[2:] if line.strip()]
        count = int(lines[1].split()[0])
    except (UnicodeDecodeError, ValueError, IndexError) as e:
        raise WeightsError("the .param is no ncnn text graph (binary ones are not read), or damaged") from e
    if lines[0].strip() != MAGIC or count != len(layers):
        raise WeightsError(f"the .param is cut off: {len(layers)} of {count} layers, first line {lines[0][:16]!r}")
    blobs = _Blobs(weights)
    for layer in layers:
        _read_arrays(layer, blobs)
    if blobs.offset != len(weights):
        left = len(weights) - blobs.offset
        raise WeightsError(f"the .bin holds {left} bytes more than its graph reads: the two are no pair")
    return layers


def _parse_line(words: Sequence[str]) -> NcnnLayer:
    """Returns the layer of a line of the graph, split into words. Raises ValueError or IndexError."""
    inputs, outputs = int(words[2]), int(words[3])
    blobs, params = words[4 : 4 + inputs + outputs], {}
    if len(blobs) != inputs + outputs:
        raise ValueError("names of blobs are missing")
    for word in words[4 + inputs + outputs :]:
        key, _, value = word.partition("=")
        if int(key) == FUSED_SLOPE:
            value = value.split(",")[1]
        if (int(key) > ARRAY or int(key) == FUSED_SLOPE) and not value.startswith('"'):  # an expression, of reshaping
            params[int(key)] = float(value)
    return NcnnLayer(words[0], words[1], list(blobs[:inputs]), list(blobs[inputs:]), params)


def _read_arrays(layer: NcnnLayer, blobs: _Blobs) -> None:
    """Reads the arrays that ncnn's load_model of this kind of layer reads.

    Kinds of layers that are not listed here have no weights in these networks.
    """
    number = layer.number
    if layer.kind in CONVOLUTIONS:
        bias, size = (1, 2) if layer.kind == "InnerProduct" else (5, 6)
        if number(8):
            raise WeightsError(f"layer {layer.name} is quantized to int8; get the float16 or float32 files")
        layer.arrays.append(blobs.tagged(number(size)))
        if number(bias):
            layer.arrays.append(blobs.raw(number(0)))
    elif layer.kind == "PReLU":
        layer.arrays.append(blobs.raw(number(0)))
    elif layer.kind == "BatchNorm":  # slope, mean, variance, bias
        layer.arrays += [blobs.raw(number(0)) for _ in range(4)]
    elif layer.kind == "Scale":
        layer.arrays += [blobs.raw(number(0)) for _ in range(1 + number(1))]
    elif layer.kind == "MemoryData":
        count = int(np.prod([number(key) or 1 for key in (0, 1, 11, 2)]))
        layer.arrays.append(blobs.raw(count) if number(21, 1) else blobs.tagged(count))


def read_convolutions(param: bytes, weights: bytes) -> list[Weights]:
    """Returns the convolutions of a graph in the order of their first use, each once.

    Betas and slopes are attached to their convolution, and batch normalisation is folded into it. Raises WeightsError.
    """
    layers = read_layers(param, weights)
    made_by = {top: i for i, layer in enumerate(layers) for top in layer.tops}
    found: dict[int, Weights] = {}  # by the index of the layer
    for i, layer in enumerate(layers):
        if layer.kind in CONVOLUTIONS:
            found[i] = _convolution(layer)
        elif layer.kind == "PReLU":
            owner = _source(layers, made_by, i)
            if owner in found:
                found[owner].slopes.append(layer.arrays[0])
        elif layer.kind == "BatchNorm":
            owner = _source(layers, made_by, i)
            if owner in found:
                _fold(found[owner], layer.arrays, float(layer.params.get(1, 0.0)))
        elif layer.kind == "BinaryOp" and layer.number(0) == MULTIPLY:
            _attach_beta(layers, made_by, layer, found)
    once: dict[tuple[bytes, bytes], Weights] = {}
    for conv in found.values():
        bias = b"" if conv.bias is None else conv.bias.tobytes()
        once.setdefault((conv.weight.tobytes(), bias), conv)
    return list(once.values())


def _convolution(layer: NcnnLayer) -> Weights:
    """Returns the weights of a convolution layer in torch's layout; a fully connected layer is a 1x1 convolution."""
    out = layer.number(0)
    if layer.kind == "InnerProduct":
        height = width = 1
    else:
        width = layer.number(1)
        height = layer.number(11, width)
    weight, bias = layer.arrays[0], layer.arrays[1] if len(layer.arrays) > 1 else None
    if out * height * width <= 0 or weight.size % (out * height * width):
        raise WeightsError(f"layer {layer.name}: {weight.size} weights do not make {out} kernels of {height}x{width}")
    weight = weight.reshape(out, -1, height, width)
    transposed = layer.kind.startswith("Deconvolution")
    slopes = [np.array([layer.params.get(FUSED_SLOPE, 0.0)], np.float32)] if layer.number(FUSED) == LEAKY else []
    return Weights(weight.swapaxes(0, 1) if transposed else weight, bias, transposed, slopes=slopes)


def _source(layers: Sequence[NcnnLayer], made_by: dict[str, int], i: int) -> int:
    """Returns the index of the convolution that layer `i` gets its input from, or -1 if there is none.

    Of several inputs the one computed last is followed: the others are skip connections. Raises WeightsError.
    """
    while layers[i].bottoms:
        before = max(made_by.get(blob, -1) for blob in layers[i].bottoms)
        if before >= i:
            raise WeightsError(f"layer {layers[i].name} reads the result of a later layer: the .param is damaged")
        i = before
        if i < 0 or layers[i].kind in CONVOLUTIONS:
            return i
    return -1


def _fold(conv: Weights, arrays: Sequence[np.ndarray], epsilon: float) -> None:
    """Folds a batch normalisation (slope, mean, variance, bias, each (out,)) into the convolution before it."""
    slope, mean, variance, shift = arrays
    factor = slope / np.sqrt(variance + epsilon)
    bias = 0 if conv.bias is None else conv.bias
    conv.weight = conv.weight * factor.reshape((1, -1, 1, 1) if conv.transposed else (-1, 1, 1, 1))
    conv.bias = (bias - mean) * factor + shift


def _attach_beta(
    layers: Sequence[NcnnLayer], made_by: dict[str, int], layer: NcnnLayer, found: dict[int, Weights]
) -> None:
    """Attaches the beta of a ResConv to its convolution, if `layer` multiplies by a constant of one value a channel."""
    factors = [made_by.get(blob, -1) for blob in layer.bottoms]
    factors = [made_by.get(layers[i].bottoms[0], -1) if i >= 0 and layers[i].kind == "Split" else i for i in factors]
    constants = [i for i in factors if i >= 0 and layers[i].kind == "MemoryData"]
    convolutions = [i for i in factors if i in found]
    if len(constants) == 1 and len(convolutions) == 1:
        beta = layers[constants[0]].arrays[0]
        if beta.size == found[convolutions[0]].weight.shape[0]:
            found[convolutions[0]].beta = beta
