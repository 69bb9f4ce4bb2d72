"""The unchanged tritonclient[http] against the gateway: health, metadata, index, and queries in every form.

Usage: oip_client.py HOST:PORT KEY MODEL. The model takes 3 features and gives 2 classes, `no` and `yes`, whose
probabilities are the shares of the first two features. Prints one JSON line of what was found; fails where an answer is
not what these rows must give.
"""

import json
import sys

import numpy
import tritonclient.http as triton

ROWS = numpy.array([[1, 3, 0], [3, 1, 0], [1, 1, 7]], dtype=numpy.float32)
SHARES = ROWS[:, :2] / ROWS[:, :2].sum(axis=1, keepdims=True)
# Of equally probable classes the first.
LABELS = ["yes", "no", "no"]


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def query(client, model, key, binary_in, binary_out, **more):
    tensor = triton.InferInput("input", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=binary_in)
    wanted = None
    if binary_out is not None:
        wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("label", "probabilities")]
    # The client writes into the headers that it is given.
    headers = {"Authorization": f"Bearer {key}"}
    result = client.infer(model, [tensor], outputs=wanted, headers=headers, request_id="q-1", **more)
    assert numpy.allclose(result.as_numpy("probabilities"), SHARES), result.get_response()
    assert [text(label) for label in result.as_numpy("label")] == LABELS, result.get_response()
    response = result.get_response()
    assert response["id"] == "q-1" and response["model_name"] == model and response["model_version"] == "1"


def refused(call):
    try:
        call()
    except triton.InferenceServerException as error:
        return str(error)
    raise AssertionError("it was not refused")


def main():
    address, key, model = sys.argv[1:4]
    headers = lambda: {"Authorization": f"Bearer {key}"}
    client = triton.InferenceServerClient(address, concurrency=4)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(model, headers=headers())
    assert client.is_model_ready(model, "1", headers=headers())
    assert not client.is_model_ready("no-such-model", headers=headers())
    assert client.get_server_metadata(headers=headers())["name"] == "daitn"
    metadata = client.get_model_metadata(model, headers=headers())
    columns = {"columns": ["x0", "x1", "x2"]}
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3], "parameters": columns}], metadata
    index = client.get_model_repository_index(headers=headers())
    assert {"name": model, "version": "1", "state": "READY", "reason": ""} in index, index

    n_queries = 0
    for binary_in in (True, False):
        for binary_out in (True, False, None):
            query(client, model, key, binary_in, binary_out)
            query(client, model, key, binary_in, binary_out, model_version="1")
            n_queries += 2
    tensor = triton.InferInput("input", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS)
    pending = [client.async_infer(model, [tensor], headers=headers()) for _ in range(16)]
    for request in pending:
        assert numpy.allclose(request.get_result().as_numpy("probabilities"), SHARES)
        n_queries += 1

    narrow = triton.InferInput("input", [3, 2], "FP32")
    narrow.set_data_from_numpy(ROWS[:, :2].copy())
    wide = triton.InferInput("input", [3, 3], "FP64")
    wide.set_data_from_numpy(ROWS.astype(numpy.float64))
    print(json.dumps({
        "queries": n_queries,
        "narrow": refused(lambda: client.infer(model, [narrow], headers=headers())),
        "wide": refused(lambda: client.infer(model, [wide], headers=headers())),
        "unknown": refused(lambda: client.infer("no-such-model", [tensor], headers=headers())),
        "nobody": refused(lambda: client.infer(model, [tensor])),
    }))


main()
