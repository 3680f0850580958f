"""TensorFlow Serving's contract: what its server reads in our SavedModel, and how it decodes a REST request.

The rules are those of the server's REST API, row format: `instances` has an object a sequence, whose values are
stacked by name; a model with one output answers a list of values, with several a list of objects.
"""

import http.server
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snippets import ROOT, snippets

from cloudml_tf.config.load import load_config
from cloudml_tf.data.prepare import prepare
from cloudml_tf.inference.export.formats import FORMATS

CLIENT = [s.code for s in snippets(ROOT / "docs/serving.md") if s.language == "python" and not s.mark]


@pytest.fixture(scope="module")
def exported(finished: Path) -> Path:
    return finished.parent / "savedmodels" / "tiny"


@pytest.fixture(scope="module")
def sequences(finished: Path) -> list[dict[str, Any]]:
    """Five sequences of the test flight, as JSON has them."""
    inputs = prepare(load_config(finished / "config.json")).parts["test"].inputs(slice(5))
    return [{name: values[i].tolist() for name, values in inputs.items()} for i in range(5)]


@pytest.fixture(scope="module")
def expected(finished: Path) -> np.ndarray:
    return np.load(finished / "predictions.npz")["test_prediction"][:5]


def served(serve: Any, request: dict[str, Any]) -> dict[str, Any]:
    """The server's answer to a row-format request; ValueError where it would refuse."""
    specs = serve.structured_input_signature[1]
    rows = request["instances"]
    if any(set(row) != set(specs) for row in rows):
        raise ValueError(f"instances must have the inputs {sorted(specs)}")
    import tensorflow as tf

    tensors = {}
    for name, spec in specs.items():
        values = np.asarray([row[name] for row in rows], spec.dtype.as_numpy_dtype)  # stacked: (n, ...)
        if not spec.shape.is_compatible_with(values.shape):
            raise ValueError(f"{name}: shape {values.shape} is not {spec.shape}")
        tensors[name] = tf.constant(values)
    outputs = {name: value.numpy().tolist() for name, value in serve(**tensors).items()}
    if len(outputs) == 1:
        return {"predictions": next(iter(outputs.values()))}
    return {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]}


@pytest.fixture(scope="module")
def address(exported: Path) -> Iterator[str]:
    """A server on this machine that decodes and answers by the rules above."""
    import tensorflow as tf

    model = tf.saved_model.load(str(exported))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                assert self.path == "/v1/models/cloudml:predict"
                status, answer = (
                    200,
                    served(model.signatures[request.get("signature_name", "serving_default")], request),
                )
            except ValueError as error:
                status, answer = 400, {"error": str(error)}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/models/cloudml:predict"
        server.shutdown()
        thread.join()


def test_the_client_of_the_docs_gets_the_runs_predictions(
    address: str, sequences: list[dict[str, Any]], expected: np.ndarray
) -> None:
    names: dict[str, Any] = {}
    for code in CLIENT:
        exec(compile(code, "docs/serving.md", "exec"), names)
    np.testing.assert_allclose(names["predict"](sequences, address), expected, rtol=1e-4)
    np.testing.assert_allclose(names["predict"](sequences[2:3], address), expected[2:3], rtol=1e-4)


def test_a_row_that_does_not_fit_is_refused(address: str, sequences: list[dict[str, Any]]) -> None:
    for change in ({"frames": [[0.0]]}, {"sun": 1.0}):
        body = json.dumps({"instances": [{**sequences[0], **change}]}).encode()
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            urllib.request.urlopen(urllib.request.Request(address, body), timeout=30)
        refused.value.close()


def test_the_file_says_what_the_server_looks_for(exported: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel.FromString((exported / FORMATS["savedmodel"].file).read_bytes())
    (graph,) = content.meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    signature = graph.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    shapes = {name: [side.size for side in info.tensor_shape.dim] for name, info in signature.inputs.items()}
    assert shapes == {"frames": [-1, 3, 12, 12, 1], "sun_angles_deg": [-1, 3, 2]}
    assert {name: info.dtype for name, info in signature.inputs.items()} == dict.fromkeys(shapes, 1)  # DT_FLOAT
    assert list(signature.outputs) == ["optical_depth"]


AS_THE_SERVER = """
import json, sys
import tensorflow as tf
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], sys.argv[1])
    signature = graph.signature_def["serving_default"]
    rows = json.load(open(sys.argv[2]))
    feed = {info.name: [row[name] for row in rows] for name, info in signature.inputs.items()}
    (output,) = signature.outputs.values()
    print(json.dumps(session.run(output.name, feed).tolist()))
"""


@pytest.mark.slow
def test_a_numbered_version_runs_as_a_graph(
    exported: Path, sequences: list[dict[str, Any]], expected: np.ndarray, tmp_path: Path
) -> None:
    """The folder `models/cloudml/1` of the docs, loaded without Python objects: graph, tag, tensor names."""
    version = tmp_path / "models" / "cloudml" / "1"
    subprocess.run(["cp", "-r", str(exported), str(tmp_path / "1")], check=True)
    version.parent.mkdir(parents=True)
    (tmp_path / "1").rename(version)
    (tmp_path / "rows.json").write_text(json.dumps(sequences))
    command = [sys.executable, "-c", AS_THE_SERVER, str(version), str(tmp_path / "rows.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    np.testing.assert_allclose(np.reshape(found, -1), expected, rtol=1e-4)
