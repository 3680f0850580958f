"""Convert a SavedModel to the other formats. It is the source of all, so a run and an ensemble are treated alike.

Keras can export both formats from a model as well; an ensemble is not a Keras model, and Keras's ONNX export fails at
the error function inside GELU, which it cannot write.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.inference.export.formats import FORMATS
from cloudml_tf.utils.errors import RunError
from cloudml_tf.utils.tf_logging import held_back_stderr

OPSET = 18  # of ONNX: what runtimes of 2023 and later read


def convert(savedmodel: Path, name: str, path: Path) -> None:
    """Write the SavedModel's signature `serving_default` in the format `name`, with any batch size.

    Raises `RunError` where that format lacks an operation of the network.
    """
    try:
        (write_onnx if name == "onnx" else write_litert)(savedmodel, path)
    except OSError:
        raise
    except Exception as error:  # converters raise errors of any type
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise RunError(
            f"this network cannot be written as {FORMATS[name].title} ({reason[0]}). Leave {name} out of --format and "
            "output.export_formats."
        ) from error


def write_litert(savedmodel: Path, path: Path) -> None:
    """Write LiteRT, with the same signature, and LiteRT's own operations alone."""
    import tensorflow as tf

    with held_back_stderr():
        converter = tf.lite.TFLiteConverter.from_saved_model(str(savedmodel), signature_keys=["serving_default"])
        path.write_bytes(converter.convert())


def write_onnx(savedmodel: Path, path: Path) -> None:
    """Write ONNX, with the same names of inputs and outputs."""
    import onnx
    import tensorflow as tf
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    loaded = tf.saved_model.load(str(savedmodel))
    serve = loaded.signatures["serving_default"]
    specs = list(serve.structured_input_signature[1].values())

    @tf.function(input_signature=specs)
    def call(*tensors: Any) -> Any:
        return serve(**{spec.name: tensor for spec, tensor in zip(specs, tensors, strict=True)})

    with held_back_stderr():
        model, _ = tf2onnx.convert.from_function(
            call, input_signature=specs, opset=OPSET, custom_op_handlers={"Erfc": (_erfc, [])}
        )
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    """Replace the erfc of Keras's GELU, which ONNX lacks, by 1 - erf: exact to the rounding of float32 at 1."""
    one = graph.make_const(f"{name}_one", np.ones((), "float32"))
    erf = graph.make_node("Erf", node.input, name=f"{name}_erf")
    outputs, shapes, dtypes = node.output, node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    graph.make_node("Sub", [one.output[0], erf.output[0]], name=name, outputs=outputs, shapes=shapes, dtypes=dtypes)
