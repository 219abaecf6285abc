"""Writes a trained network as an ONNX graph that onnxruntime runs alone.

The graph is put together by hand: its operations are few, and no exporter's habits decide what ships. Weights are
int8 (matrices in blocks of 32 along the input, the embedding table by row), sums are in float32, and no scale is
shared between the texts of a batch, so that a prompt scores the same whatever it is judged beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_OPSET = 20
_BLOCK = 32
_EPSILON = 1e-12
Arrays = Mapping[str, NDArray[np.float32]]


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._count = 0

    def add(self, op: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        self._count += 1
        out = output or f"{op}_{self._count}"
        self.nodes.append(
            helper.make_node(op, list(inputs), [out], name=f"n{self._count}", domain=domain, **attributes)
        )
        return out

    def constant(self, array: NDArray[Any]) -> str:
        self._count += 1
        name = f"c{self._count}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def dense(self, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> str:
        """``x @ weight.T + bias`` with int8 weights [outputs, inputs]."""
        outputs, inputs = weight.shape
        blocks = weight.reshape(outputs, inputs // _BLOCK, _BLOCK)
        scale = np.maximum(np.abs(blocks).max(-1), 1e-8) / 127.0
        whole = (np.clip(np.rint(blocks / scale[..., None]), -127, 127) + 128).astype(np.uint8)
        names = [x, self.constant(whole), self.constant(scale.reshape(-1).astype(np.float32))]
        out = self.add(
            "MatMulNBits", *names, domain="com.microsoft",
            K=inputs, N=outputs, bits=8, block_size=_BLOCK, accuracy_level=4,
        )  # fmt: skip
        return out if bias is None else self.add("Add", out, self.constant(bias))

    def norm(self, x: str, w: Arrays, name: str) -> str:
        scale, shift = self.constant(w[f"{name}.weight"]), self.constant(w[f"{name}.bias"])
        return self.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=_EPSILON)


def _table(g: _Graph, table: NDArray[np.float32], index: str) -> str:
    """Look rows up in an int8 table with one scale a row."""
    scale = (np.maximum(np.abs(table).max(-1, keepdims=True), 1e-8) / 127.0).astype(np.float32)
    whole = np.clip(np.rint(table / scale), -127, 127).astype(np.int8)
    rows = g.add("Cast", g.add("Gather", g.constant(whole), index, axis=0), to=TensorProto.FLOAT)
    return g.add("Mul", rows, g.add("Gather", g.constant(scale), index, axis=0))


def _layer(g: _Graph, x: str, blocked: str, w: Arrays, name: str, heads: int) -> str:
    width = w[f"{name}.attention.output.LayerNorm.weight"].shape[0]
    split = g.constant(np.array([0, 0, heads, width // heads], np.int64))
    joined = g.constant(np.array([0, 0, width], np.int64))

    def dense(value: str, part: str) -> str:
        return g.dense(value, w[f"{name}.{part}.weight"], w[f"{name}.{part}.bias"])

    def heads_of(part: str, order: list[int]) -> str:
        return g.add("Transpose", g.add("Reshape", dense(x, f"attention.self.{part}"), split), perm=order)

    query, key, value = heads_of("query", [0, 2, 1, 3]), heads_of("key", [0, 2, 3, 1]), heads_of("value", [0, 2, 1, 3])
    scale = g.constant(np.array(1.0 / np.sqrt(width / heads), np.float32))
    scores = g.add("Add", g.add("Mul", g.add("MatMul", query, key), scale), blocked)
    mixed = g.add("MatMul", g.add("Softmax", scores, axis=-1), value)
    mixed = g.add("Reshape", g.add("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
    x = g.norm(g.add("Add", dense(mixed, "attention.output.dense"), x), w, f"{name}.attention.output.LayerNorm")
    inner = g.add("Gelu", dense(x, "intermediate.dense"))
    return g.norm(g.add("Add", dense(inner, "output.dense"), x), w, f"{name}.output.LayerNorm")


def to_onnx(weights: Arrays, layers: int, heads: int) -> bytes:
    """Return the ONNX file of a network's weights (names as in its state dict).

    Inputs: ``ids`` and ``mask``, int64 [B, T]. Outputs: ``logits`` [B, H] and ``parts`` [B, T, H], float32.
    """
    g = _Graph()
    e = "encoder.embeddings"
    # Tokens are of one kind, so that kind's embedding is added to every position's.
    places = weights[f"{e}.position_embeddings.weight"] + weights[f"{e}.token_type_embeddings.weight"][:1]
    length = g.add("Slice", g.add("Shape", "ids"), *(g.constant(np.array([n], np.int64)) for n in (1, 2)))
    start, axis = g.constant(np.array([0], np.int64)), g.constant(np.array([0], np.int64))
    place = g.add("Slice", g.constant(places.astype(np.float32)), start, length, axis)
    x = g.add("Add", _table(g, weights[f"{e}.word_embeddings.weight"], "ids"), place)
    x = g.norm(x, weights, f"{e}.LayerNorm")
    present = g.add("Cast", "mask", to=TensorProto.FLOAT)
    absent = g.add(
        "Mul", g.add("Sub", g.constant(np.array(1, np.float32)), present), g.constant(np.array([-1e4], np.float32))
    )
    blocked = g.add("Unsqueeze", absent, g.constant(np.array([1, 2], np.int64)))
    for i in range(layers):
        x = _layer(g, x, blocked, weights, f"encoder.encoder.layer.{i}", heads)

    def plain(name: str) -> str:  # the heads are small and stay float32
        return g.add("MatMul", x, g.constant(weights[name].T.astype(np.float32)))

    aside = g.add("Unsqueeze", absent, g.constant(np.array([2], np.int64)))
    attention = g.add("Softmax", g.add("Add", plain("attention.weight"), aside), axis=1)
    g.add("Mul", attention, plain("evidence.weight"), output="parts")
    summed = g.add("ReduceSum", "parts", g.constant(np.array([1], np.int64)), keepdims=0)
    g.add("Add", summed, g.constant(weights["evidence.bias"]), output="logits")
    count = int(weights["evidence.bias"].shape[0])
    whole, real = TensorProto.INT64, TensorProto.FLOAT
    graph = helper.make_graph(
        g.nodes,
        "safegen prompt classifier",
        [helper.make_tensor_value_info(n, whole, ["batch", "tokens"]) for n in ("ids", "mask")],
        [
            helper.make_tensor_value_info("logits", real, ["batch", count]),
            helper.make_tensor_value_info("parts", real, ["batch", "tokens", count]),
        ],
        g.constants,
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
