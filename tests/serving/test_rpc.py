"""TensorFlow Serving's gRPC, called by TensorFlow Serving's own client."""

import concurrent.futures
import contextlib
import pathlib
import re

import extras
import httpx
import numpy as np
import pytest
from service import Model, free_port, pixel, served, serving

from galip_keras.serving.app import create_app

grpc = extras.need("grpc", "grpc")
apis = extras.need("grpc", "tensorflow_serving.apis")

# It knows no backend.
pytestmark = [
    pytest.mark.backend("tensorflow"),
    pytest.mark.extra("grpc", "tensorflow_serving"),
]

CODE = grpc.StatusCode


@contextlib.contextmanager
def stub(address):
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=20)
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@contextlib.contextmanager
def client(model=None, **options):
    address = f"127.0.0.1:{free_port()}"
    app = create_app(model or Model(), grpc_address=address, **options)
    with serving(app), stub(address) as found:
        yield found


def request(prompts=("an owl",), seeds=(7,), name="galip", dtype="int64"):
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    asked = predict_pb2.PredictRequest()
    asked.model_spec.name = name
    for key, values, kind in (("prompt", prompts, None), ("seed", seeds, dtype)):
        asked.inputs[key].CopyFrom(tf.make_tensor_proto(values, dtype=kind))
    return asked


def tensors(signature, **inputs):
    """A request of another signature: each input as values and dtype."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    asked = predict_pb2.PredictRequest()
    asked.model_spec.name = "galip"
    asked.model_spec.signature_name = signature
    for key, (values, dtype) in inputs.items():
        asked.inputs[key].CopyFrom(tf.make_tensor_proto(values, dtype))
    return asked


def tokens(ids=((1, 2, 199),), latents=((1, 0, 0, 0),), kinds=("int32", "float32")):
    return tensors("generate", token_ids=(ids, kinds[0]), noise=(latents, kinds[1]))


def images(response):
    import tensorflow as tf

    return tf.make_ndarray(response.outputs["image_bytes"]).tolist()


def refusal(stub, asked, **options):
    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(asked, timeout=20, **options)
    return error.value


def test_predict():
    with client() as stub:
        response = stub.Predict(request(["an owl", "a\u00e9"], [7, 2**63 - 1]))
        found = [pixel(png) for png in images(response)]
        assert found == [(6, 7, 10), (2, 255, 10)]
        assert response.model_spec.version.value == 1
        # With values written as bytes, too, as other clients do.
        asked = request()
        asked.inputs["seed"].ClearField("int64_val")
        asked.inputs["seed"].tensor_content = np.array([9]).tobytes()
        assert [pixel(png) for png in images(stub.Predict(asked))] == [(6, 9, 10)]


def test_embed_and_generate():
    import tensorflow as tf

    with client() as stub:
        response = stub.Predict(tensors("embed", prompt=(["an owl", "a"], "string")))
        embeddings = tf.make_ndarray(response.outputs["embedding"])
        assert embeddings.dtype == "float32"
        assert embeddings.tolist() == [[6], [1]]
        assert response.model_spec.signature_name == "embed"
        response = stub.Predict(tokens([[1, 2, 199]] * 3, [[1, 0, 0, 0]] * 3))
        found = tf.make_ndarray(response.outputs["images"])
        assert (found.dtype, found.shape) == ("uint8", (3, 2, 2, 3))
        assert found[2, 1, 1].tolist() == [1, 199, 10]


def test_requests_of_both_interfaces_are_drawn_together():
    model = Model()
    address = f"127.0.0.1:{free_port()}"
    app = create_app(model, grpc_address=address, max_wait=1.0)
    with serving(app) as rest, stub(address) as grpc_stub:

        def ask(seed):
            if seed % 2:
                return httpx.get(f"{rest}/image?prompt=an+owl&seed={seed}").content
            (png,) = images(grpc_stub.Predict(request(seeds=[seed])))
            return png

        grpc_stub.Predict(request())
        model.batches.clear()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            drawn = [pixel(png) for png in pool.map(ask, range(8))]
    assert drawn == [(6, seed, 10) for seed in range(8)]
    assert max(len({seed % 2 for _, seed in batch}) for batch in model.batches) == 2


def broken(change):
    asked = request()
    change(asked)
    return asked


def huge(asked):
    asked.inputs["seed"].tensor_shape.dim[0].size = 10**12


def huge_tokens():
    asked = tokens()
    asked.inputs["token_ids"].tensor_shape.dim[1].size = 10**12
    return asked


def unknown_rank():
    asked = tokens()
    asked.inputs["noise"].tensor_shape.ClearField("dim")
    asked.inputs["noise"].tensor_shape.unknown_rank = True
    return asked


def short(asked):
    asked.inputs["seed"].tensor_content = b"\x00" * 7


def version(asked):
    asked.model_spec.version.value = 2


BAD = {
    "of another name": (lambda: request(name="other"), CODE.NOT_FOUND),
    "of another version": (lambda: broken(version), CODE.NOT_FOUND),
    "a signature": (
        lambda: broken(lambda x: setattr(x.model_spec, "signature_name", "classify")),
        CODE.INVALID_ARGUMENT,
    ),
    "no seed": (lambda: broken(lambda x: x.inputs.pop("seed")), CODE.INVALID_ARGUMENT),
    "nothing": (lambda: request([], []), CODE.INVALID_ARGUMENT),
    "too many": (lambda: request(["a"] * 17, [1] * 17), CODE.INVALID_ARGUMENT),
    "uneven": (lambda: request(["a"], [1, 2]), CODE.INVALID_ARGUMENT),
    "a scalar": (lambda: request("a", 1), CODE.INVALID_ARGUMENT),
    "negative": (lambda: request(seeds=[-1]), CODE.INVALID_ARGUMENT),
    "int32": (lambda: request(dtype="int32"), CODE.INVALID_ARGUMENT),
    "empty": (lambda: request([""]), CODE.INVALID_ARGUMENT),
    "no UTF-8": (lambda: request([b"\xff"]), CODE.INVALID_ARGUMENT),
    "long": (lambda: request(["a" * 2001]), CODE.INVALID_ARGUMENT),
    "huge": (lambda: broken(huge), CODE.INVALID_ARGUMENT),
    "short": (lambda: broken(short), CODE.INVALID_ARGUMENT),
    "of another signature": (
        lambda: broken(lambda x: setattr(x.model_spec, "signature_name", "embed")),
        CODE.INVALID_ARGUMENT,
    ),
    "no noise": (
        lambda: tensors("generate", token_ids=([[1, 2, 3]], "int32")),
        CODE.INVALID_ARGUMENT,
    ),
    "int64 ids": (lambda: tokens(kinds=("int64", "float32")), CODE.INVALID_ARGUMENT),
    "strings as noise": (
        lambda: tokens(latents=[list("abcd")], kinds=("int32", "string")),
        CODE.INVALID_ARGUMENT,
    ),
    "doubles": (lambda: tokens(kinds=("int32", "float64")), CODE.INVALID_ARGUMENT),
    "an unknown id": (lambda: tokens([[1, 2, 200]]), CODE.INVALID_ARGUMENT),
    "a negative id": (lambda: tokens([[1, 2, -1]]), CODE.INVALID_ARGUMENT),
    "few ids": (lambda: tokens([[1, 2]]), CODE.INVALID_ARGUMENT),
    "ids in a row": (lambda: tokens([1, 2, 3]), CODE.INVALID_ARGUMENT),
    "ids too deep": (lambda: tokens([[[1, 2, 3]]]), CODE.INVALID_ARGUMENT),
    "NaN": (lambda: tokens(latents=[[1, 0, 0, np.nan]]), CODE.INVALID_ARGUMENT),
    "infinite": (lambda: tokens(latents=[[1, 0, 0, -np.inf]]), CODE.INVALID_ARGUMENT),
    "uneven rows": (lambda: tokens(latents=[[1, 0, 0, 0]] * 2), CODE.INVALID_ARGUMENT),
    "no rows": (
        lambda: tokens(np.zeros([0, 3]), np.zeros([0, 4])),
        CODE.INVALID_ARGUMENT,
    ),
    "17 rows": (
        lambda: tokens(np.ones([17, 3]), np.ones([17, 4])),
        CODE.INVALID_ARGUMENT,
    ),
    "huge ids": (huge_tokens, CODE.INVALID_ARGUMENT),
    "of unknown rank": (unknown_rank, CODE.INVALID_ARGUMENT),
    "a megabyte": (lambda: request(["a" * 10**6]), CODE.RESOURCE_EXHAUSTED),
}


@pytest.fixture(scope="module")
def one():
    model = Model()
    with client(model) as stub:
        yield stub, model


@pytest.mark.parametrize("name", BAD)
def test_bad_requests(one, name):
    stub, _ = one
    asked, code = BAD[name]
    assert refusal(stub, asked()).code() == code


def test_what_fails_tells_nothing(one):
    error = refusal(one[0], request(["break"]))
    assert error.code() == CODE.INTERNAL
    assert "secret" not in error.details()
    assert images(one[0].Predict(request()))


def test_other_methods_are_not_there(one):
    from tensorflow_serving.apis import get_model_metadata_pb2

    asked = get_model_metadata_pb2.GetModelMetadataRequest()
    with pytest.raises(grpc.RpcError) as error:
        one[0].GetModelMetadata(asked)
    assert error.value.code() == CODE.UNIMPLEMENTED


def test_a_full_queue_and_a_long_wait():
    model = Model()
    with client(model, max_queue=2, timeout=0.3) as stub:
        stub.Predict(request())
        model.release.clear()
        codes = {refusal(stub, request([x] * 3, [1] * 3)).code() for x in "ab"}
        assert refusal(stub, request()).code() == CODE.UNAVAILABLE
        model.release.set()
    assert codes == {CODE.UNAVAILABLE}


def test_a_key():
    with client(api_key="secret") as stub:
        for metadata in ((), (("authorization", "Bearer secrets"),)):
            error = refusal(stub, request(), metadata=metadata)
            assert error.code() == CODE.UNAUTHENTICATED
        metadata = (("authorization", "Bearer secret"),)
        assert images(stub.Predict(request(), metadata=metadata))


@pytest.mark.slow
def test_the_command_gives_the_same_image_as_over_rest():
    import httpx

    port = free_port()
    with served(free_port(), "--grpc-port", str(port)) as (_, address):
        with stub(f"127.0.0.1:{port}") as found:
            (png,) = images(found.Predict(request(["a red bird"], [3])))
        text = (pathlib.Path(__file__).parents[2] / "docs" / "export.md").read_text()
        (example,) = re.findall(r"^```python\n(import grpc.*?)^```", text, re.S | re.M)
        names = {}
        exec(example.replace("8500", str(port)), names)
        assert names["png"] == png
        response = httpx.get(f"{address}/image?prompt=a+red+bird&seed=3")
        assert response.content == png
