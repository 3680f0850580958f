"""Check what an exported model contains, before any runtime loads it.

A SavedModel is a program: TensorFlow runs its graph, and the graph may read and write files. A network needs none of
that. So only operations that turn numbers into numbers are allowed; those that save and restore variables are in every
SavedModel, and are allowed where nothing but TensorFlow's own saver calls them.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloudml_tf.utils import plain_json
from cloudml_tf.utils.errors import RunError

MOST_MB = 256  # largest cloudml.json
SHA256 = "sha256"  # in cloudml.json: file -> checksum

_PLUMBING = """Const Placeholder PlaceholderWithDefault Identity IdentityN NoOp StopGradient PreventGradient Snapshot
EnsureShape VarHandleOp ReadVariableOp VarIsInitializedOp AssignVariableOp DisableCopyOnRead ResourceGather
PartitionedCall StatefulPartitionedCall If StatelessIf While StatelessWhile Case StatelessCase"""
_SHAPES = """Shape ShapeN Size Rank Reshape Squeeze ExpandDims Transpose ConjugateTranspose Concat ConcatV2 Split SplitV
Pack Unpack Slice StridedSlice Tile Pad PadV2 MirrorPad Fill ZerosLike OnesLike Range LinSpace BroadcastTo BroadcastArgs
BroadcastGradientArgs Gather GatherV2 GatherNd ScatterNd TensorScatterUpdate TensorScatterAdd Reverse ReverseV2 Roll
Where Select SelectV2 SpaceToDepth DepthToSpace SpaceToBatchND BatchToSpaceND OneHot TopKV2 InvertPermutation
UnravelIndex MatrixBandPart MatrixDiag MatrixDiagV2 MatrixDiagV3 MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3
MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 Unique UniqueV2 Cast Bitcast SearchSorted LowerBound UpperBound"""
_ARITHMETIC = """Abs Add AddV2 AddN Sub Mul MulNoNan Div DivNoNan RealDiv FloorDiv TruncateDiv FloorMod Mod Neg Pow
Square Sqrt Rsqrt Inv Reciprocal SquaredDifference Exp Expm1 Log Log1p Sin Cos Tan Asin Acos Atan Atan2 Sinh Cosh Tanh
Asinh Acosh Atanh Erf Erfc Erfinv Ndtri Lgamma Digamma Sign Floor Ceil Round Rint Maximum Minimum ClipByValue Xdivy
Xlogy Cumsum Cumprod CumulativeLogsumexp Equal NotEqual ApproximateEqual Less LessEqual Greater GreaterEqual LogicalAnd
LogicalOr LogicalNot IsNan IsInf IsFinite Sum Mean Prod Max Min All Any ArgMax ArgMin EuclideanNorm SegmentSum
UnsortedSegmentSum"""
_LAYERS = """MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 Einsum Conv2D Conv3D DepthwiseConv2dNative
Conv2DBackpropInput BiasAdd BiasAddV1 FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 L2Loss LRN AvgPool AvgPool3D
MaxPool MaxPoolV2 MaxPool3D Relu Relu6 LeakyRelu Elu Selu Sigmoid Softplus Softsign Softmax LogSoftmax ResizeBilinear
ResizeNearestNeighbor ResizeBicubic FakeQuantWithMinMaxVars"""
NETWORK = frozenset(f"{_PLUMBING} {_SHAPES} {_ARITHMETIC} {_LAYERS}".split())
SAVER = NETWORK | {"SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename", "StringJoin", "StaticRegexFullMatch"}
ONNX_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


def digests(files: list[Path], folder: Path) -> dict[str, str]:
    """SHA-256 of each file, by its path in the folder."""
    return {str(path.relative_to(folder)): _sha256(path) for path in sorted(files)}


def check_digests(folder: Path, record: Path, names: list[str]) -> None:
    """Compare files with cloudml.json; an export of an earlier version has no checksums. Raises `RunError`."""
    if not record.is_file():
        return
    try:
        known = plain_json.read(record, MOST_MB).get(SHA256, {})
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(f"{record}: is not valid JSON ({error}). The export is damaged.") from None
    for name, expected in known.items():
        if name in names or any(name.startswith(f"{prefix}/") for prefix in names):
            path = folder / name
            found = _sha256(path) if path.is_file() else "missing"
            if found != expected:
                raise RunError(
                    f"{path}: is not the file that was exported (SHA-256 {expected[:12]}… in {record.name}, here "
                    f"{found[:12]}). Copy the export again, or export the run again."
                )


def check_savedmodel(path: Path) -> None:
    """Refuse a SavedModel that does more than compute. Raises `RunError` naming the operation."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's; its type has moved between versions
        raise RunError(f"{path}: is not a SavedModel or is damaged ({error}). Copy the export again.") from None
    for graph in model.meta_graphs:
        if graph.asset_file_def:
            raise RunError(f"{path}: contains a further file, which no network of cloudml_tf does.")
        savers = _savers(graph)
        for where, nodes in _functions(graph):
            allowed = SAVER if where in savers else NETWORK
            for node in nodes:
                _check_node(path, node, allowed, savers if where else set())
        if savers & set(graph.object_graph_def.concrete_functions):
            raise RunError(f"{path}: its saver can be called as a function of the model. It is not loaded.")


def _functions(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield ("", the outer graph's nodes), and each function's nodes by name."""
    yield "", graph.graph_def.node
    for function in graph.graph_def.library.function:
        yield function.signature.name, function.node_def


def _savers(graph: Any) -> set[str]:
    """The functions that TensorFlow's saver calls, through two nodes of the outer graph."""
    saver = graph.saver_def
    called = {saver.save_tensor_name.split(":")[0], saver.restore_op_name}
    nodes = [node for node in graph.graph_def.node if node.name in called and "f" in node.attr]
    return {node.attr["f"].func.name for node in nodes}


def _check_node(path: Path, node: Any, allowed: frozenset[str], forbidden: set[str]) -> None:
    """Refuse a node with another operation, or that calls a `forbidden` function."""
    if node.op not in allowed:
        raise RunError(
            f"{path}: holds the operation {node.op}, which no network of cloudml_tf needs: it could read or write "
            "files, or run code. It is not loaded. Use an export that you trust, or export the run again."
        )
    calls = [value.func.name for value in node.attr.values() if value.HasField("func")]
    calls += [function.name for value in node.attr.values() for function in value.list.func]
    if forbidden & set(calls):
        raise RunError(f"{path}: calls its own saver, which writes files. It is not loaded.")


def check_onnx(path: Path) -> None:
    """Refuse an ONNX file that reads other files or needs code from elsewhere. Raises `RunError`."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's; its type has moved between versions
        raise RunError(f"{path}: is not an ONNX file or is damaged ({error}). Copy the export again.") from None
    for graph in [model.graph, *model.functions]:
        for node in _onnx_nodes(graph):
            if node.domain not in ONNX_DOMAINS:
                raise RunError(f"{path}: needs the operation {node.domain}.{node.op_type}, which is not ONNX's own.")
    if any(tensor.external_data for tensor in _onnx_tensors(model)):
        raise RunError(f"{path}: has its weights in other files, which no export of cloudml_tf does.")


def _onnx_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from _onnx_nodes(inner)


def _onnx_tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for graph in [model.graph, *model.functions]:
        for node in _onnx_nodes(graph):
            for attribute in node.attribute:
                yield from [attribute.t, *attribute.tensors]
                yield from attribute.g.initializer


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
