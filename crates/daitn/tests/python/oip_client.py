"""The unchanged tritonclient[http] against the gateway: health, metadata, and a query with binary and with JSON tensors.

Usage: oip_client.py HOST:PORT KEY MODEL DIGITS_CSV. Prints one JSON line: accuracy over the last 100 rows, both ways.
"""

import csv
import json
import sys

import numpy
import tritonclient.http as triton


def labels(client, headers, model, rows, binary):
    tensor = triton.InferInput("input", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("probabilities", "label")]
    result = client.infer(model, [tensor], outputs=wanted, headers=headers)
    probabilities = result.as_numpy("probabilities")
    assert probabilities.shape == (len(rows), 10), probabilities.shape
    assert numpy.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    names = [name.decode() if isinstance(name, bytes) else name for name in result.as_numpy("label").reshape(-1)]
    assert [int(name) for name in names] == probabilities.argmax(axis=1).tolist()
    return names


def main():
    address, key, model, path = sys.argv[1:5]
    headers = {"Authorization": f"Bearer {key}"}
    client = triton.InferenceServerClient(address)
    assert client.is_server_live(headers=headers) and client.is_server_ready(headers=headers)
    assert client.is_model_ready(model, headers=headers)
    metadata = client.get_model_metadata(model, headers=headers)
    assert metadata["name"] == model and metadata["inputs"][0]["datatype"] == "FP32", metadata
    table = list(csv.reader(open(path)))[1:][-100:]
    rows = numpy.array([row[:-1] for row in table], dtype=numpy.float32)
    truth = [row[-1] for row in table]
    found = {}
    for binary in (True, False):
        names = labels(client, headers, model, rows, binary)
        found["binary" if binary else "json"] = sum(a == b for a, b in zip(names, truth)) / len(truth)
    try:
        labels(client, headers, model, rows[:, :3].copy(), True)
    except triton.InferenceServerException as error:
        found["bad_shape"] = str(error)
    print(json.dumps(found))


main()
