"""TensorFlow Serving's signatures other than the default, over REST."""

import base64
import concurrent.futures
import json

import numpy as np
import pytest
import tiny
from fastapi.testclient import TestClient
from service import (
    PREDICT,
    Model,
    pixel,
    until,
    wait_until_drawing,
    wait_until_queued,
    wait_until_ready,
)

from galip_keras import GALIPTextToImage, noise
from galip_keras.serving.app import create_app

# It knows no backend.
pytestmark = pytest.mark.backend("tensorflow")

IDS = [1, 2, 199]
NOISE = [1, 0.5, -3.0, 0]
# What the double makes of them.
IMAGE = [[[1, 199, 10]] * 2] * 2


@pytest.fixture(scope="module")
def one():
    model = Model()
    with TestClient(create_app(model), raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield client, model


@pytest.fixture(scope="module")
def network():
    return tiny.text_to_image(0.05)


def ask(client, name, **content):
    response = client.post(PREDICT, json={"signature_name": name, **content})
    assert response.status_code == 200, response.text
    (answer,) = response.json().items()
    return answer


def tokens(token_ids=IDS, latents=NOISE, **others):
    return {"instances": [{"token_ids": token_ids, "noise": latents, **others}]}


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"instances": [{"prompt": "an owl"}, {"prompt": "a"}]}, "predictions"),
        ({"instances": ["an owl", {"prompt": "a"}]}, "predictions"),
        ({"instances": ["an owl", {"b64": "YQ=="}]}, "predictions"),
        ({"instances": ["an owl", {"prompt": {"b64": "YQ=="}}]}, "predictions"),
        ({"inputs": {"prompt": ["an owl", "a"]}}, "outputs"),
        ({"inputs": ["an owl", {"b64": "YQ=="}]}, "outputs"),
    ],
)
def test_prompts_are_embedded_by_row_and_by_column(one, content, key):
    assert ask(one[0], "embed", **content) == (key, [[6.0], [1.0]])


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"instances": tokens()["instances"] * 2}, "predictions"),
        ({"inputs": {"token_ids": [IDS] * 2, "noise": [NOISE] * 2}}, "outputs"),
    ],
)
def test_images_are_generated_by_row_and_by_column(one, content, key):
    assert ask(one[0], "generate", **content) == (key, [IMAGE] * 2)


def test_a_model_s_own_results(network):
    prompts, seeds = ["a red bird", "an owl"], [3, 2**40]
    token_ids = np.asarray(network.preprocessor(prompts)).tolist()
    latents = noise(seeds, network.latent_dim).tolist()
    with TestClient(create_app(network, batch_size=2)) as client:
        wait_until_ready(client)
        _, embeddings = ask(client, "embed", instances=prompts)
        inputs = {"token_ids": token_ids, "noise": latents}
        _, images = ask(client, "generate", inputs=inputs)
        inputs = {"prompt": prompts, "seed": seeds}
        _, files = ask(client, "serving_default", inputs=inputs)
    np.testing.assert_allclose(embeddings, network.embed(prompts), rtol=1e-5, atol=1e-6)
    assert not np.allclose(*embeddings, atol=1e-3)
    drawn = [pixel(base64.b64decode(x["b64"])) for x in files]
    assert [tuple(image[0][0]) for image in images] == drawn
    np.testing.assert_array_equal(images, network.generate(prompts, seed=seeds))


def bad(name, *contents):
    return [{"signature_name": name, **content} for content in contents]


BAD = [
    *bad(
        "embed",
        {}, {"instances": []}, {"inputs": []}, {"inputs": {}}, {"inputs": "a"},
        {"inputs": [["a"]]}, {"inputs": {"prompt": "a"}}, {"inputs": {"b64": "YQ=="}},
        {"instances": [""]}, {"instances": [5]}, {"instances": [None]},
        {"instances": [["a"]]}, {"instances": ["a" * 2001]}, {"instances": ["a"] * 17},
        {"inputs": ["a"] * 17}, {"instances": [{"b64": "%"}]},
        {"instances": [{"prompt": {"b64": "/w=="}}]},
        {"instances": [{"prompt": "a", "seed": 1}]}, {"instances": "a"},
        {"instances": ["a"], "inputs": ["a"]},
    ),
    *bad(
        "generate",
        {"instances": [IDS]}, {"inputs": [IDS]}, {"instances": [{"token_ids": IDS}]},
        tokens(seed=1), {"instances": tokens()["instances"] * 17},
        {**tokens(), "inputs": {"token_ids": [IDS], "noise": [NOISE]}},
        tokens([]), tokens(IDS[:2]), tokens([*IDS, 1]), tokens([IDS]), tokens(1),
        tokens([200, 1, 1]), tokens([-1, 1, 1]), tokens([2**70, 1, 1]),
        tokens([True, 1, 1]), tokens([1.0, 1, 1]), tokens(["1", 1, 1]),
        tokens([None, 1, 1]), tokens([[[[1]]], 1, 1]),
        tokens(latents=[]), tokens(latents=NOISE[:3]), tokens(latents=[*NOISE, 0]),
        tokens(latents=[NOISE]), tokens(latents=["1", 0, 0, 0]),
        tokens(latents=[True, 0, 0, 0]), tokens(latents=[None, 0, 0, 0]),
        tokens(latents=[1e39, 0, 0, 0]), tokens(latents=[10**400, 0, 0, 0]),
        tokens(latents=[float("nan"), 0, 0, 0]),
        tokens(latents=[-float("inf"), 0, 0, 0]),
        {"inputs": {"token_ids": [IDS] * 2, "noise": [NOISE]}},
        {"inputs": {"token_ids": [IDS], "noise": NOISE}},
        {"inputs": {"token_ids": [IDS] * 17, "noise": [NOISE] * 17}},
        {"inputs": {"token_ids": [], "noise": []}},
    ),
    *bad("serving_default", {"instances": ["a"]}, {"inputs": ["a"]}, tokens()),
    *bad(None, {"instances": ["a"]}), *bad(["embed"], {"instances": ["a"]}),
]  # fmt: skip


@pytest.mark.parametrize("content", BAD, ids=lambda x: str(x)[:60])
def test_what_does_not_fit_is_one_line(one, content):
    client, model = one
    model.batches.clear()
    response = client.post(PREDICT, content=json.dumps(content))
    assert response.status_code == 400
    error = response.json()["error"]
    assert "\n" not in error
    assert not error.startswith("Value error")
    assert model.batches == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"instances": ["a"], "inputs": ["a"]}, "give either `instances` or `inputs`"),
        ({"inputs": {"prompt": ["a"], "seed": [1, 2]}}, "must have the same length"),
        ({"signature_name": "generate", **tokens([200, 1, 1])}, "token_ids.0"),
    ],
)
def test_an_error_names_what_is_wrong(one, content, words):
    content = {"signature_name": "embed", **content}
    if "seed" in str(content):
        del content["signature_name"]
    assert words in one[0].post(PREDICT, json=content).json()["error"]


def test_deep_nesting(one):
    body = '{"signature_name": "generate", "inputs": ' + "[" * 60_000
    assert one[0].post(PREDICT, content=body).status_code == 400


def test_an_unknown_signature_is_told_those_that_there_are(one):
    asked = {"signature_name": "classify", "instances": ["a"]}
    response = one[0].post(PREDICT, json=asked)
    assert response.status_code == 400
    assert response.json()["error"].endswith("serving_default, embed, generate")


def test_a_model_that_only_draws_has_one_signature():
    class Plain:
        generate = Model().generate

    asked = {"signature_name": "embed", "instances": ["a"]}
    with TestClient(create_app(Plain())) as client:
        wait_until_ready(client)
        response = client.post(PREDICT, json=asked)
        assert response.status_code == 400
        assert response.json()["error"].endswith("the model has serving_default")
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
        assert len(schemas["Predict"]["anyOf"]) == 1


def test_a_model_without_a_tokenizer_takes_token_ids(network):
    silent = GALIPTextToImage(network.backbone)
    sizes = silent.sizes
    assert sizes == network.sizes
    inputs = {
        "token_ids": [[0] * sizes["sequence_length"]],
        "noise": noise([3], sizes["latent_dim"]).tolist(),
    }
    with TestClient(create_app(silent, batch_size=1)) as client:
        wait_until_ready(client)
        _, images = ask(client, "generate", inputs=inputs)
        assert np.shape(images) == (1, 32, 32, 3)
        for name in ("", "serving_default", "embed"):
            asked = {"signature_name": name, "instances": ["a"]}
            response = client.post(PREDICT, json=asked)
            assert response.status_code == 400
            assert response.json()["error"].endswith("the model has generate")
        for path in ("/image?prompt=a", "/interpolation?prompt=a&other=b"):
            response = client.get(path)
            assert response.status_code == 400
            assert "no tokenizer" in response.json()["error"]


def test_the_metadata_has_all_signatures(one):
    answer = one[0].get("/v1/models/galip/metadata").json()
    found = answer["metadata"]["signature_def"]["signature_def"]

    def facts(tensors):
        return {
            name: (x["dtype"], *(dim["size"] for dim in x["tensor_shape"]["dim"]))
            for name, x in tensors.items()
        }

    each = ((name, x["inputs"], x["outputs"]) for name, x in found.items())
    assert {name: (facts(gets), facts(gives)) for name, gets, gives in each} == {
        "serving_default": (
            {"prompt": ("DT_STRING", "-1"), "seed": ("DT_INT64", "-1")},
            {"image_bytes": ("DT_STRING", "-1")},
        ),
        "embed": (
            {"prompt": ("DT_STRING", "-1")}, {"embedding": ("DT_FLOAT", "-1", "1")},
        ),
        "generate": (
            {"token_ids": ("DT_INT32", "-1", "3"), "noise": ("DT_FLOAT", "-1", "4")},
            {"images": ("DT_UINT8", "-1", "2", "2", "3")},
        ),
    }  # fmt: skip


def test_all_kinds_wait_in_one_queue():
    model = Model()
    with TestClient(create_app(model, max_queue=5)) as client:
        wait_until_ready(client)
        model.batches.clear()
        model.release.clear()

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            first = pool.submit(client.get, "/image?prompt=first")
            wait_until_drawing(client, model)
            embedded = pool.submit(ask, client, "embed", inputs=["an owl", "a"])
            inputs = {"token_ids": [IDS] * 2, "noise": [NOISE] * 2}
            generated = pool.submit(ask, client, "generate", inputs=inputs)
            image = pool.submit(client.get, "/image?prompt=a&seed=2")
            wait_until_queued(client, 5)
            asked = {"signature_name": "embed", "inputs": ["a"]}
            refused = client.post(PREDICT, json=asked)
            model.release.set()
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert first.result().status_code == 200
            assert embedded.result() == ("outputs", [[6.0], [1.0]])
            assert generated.result() == ("outputs", [IMAGE] * 2)
            assert pixel(image.result().content) == (1, 2, 10)
        # An embedding is no image.
        text = client.get("/metrics").text
        assert "galip_pictures_total 4.0" in text
        assert "galip_batch_pictures_count 2.0" in text


def test_an_embedding_that_takes_too_long_is_given_up():
    model = Model()
    with TestClient(create_app(model, timeout=0.3)) as client:
        wait_until_ready(client)
        model.release.clear()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.get, "/image?prompt=first")
            until(lambda: model.is_drawing)
            asked = {"signature_name": "embed", "inputs": ["a"]}
            assert client.post(PREDICT, json=asked).status_code == 503
            model.release.set()
            first.result()
        assert ask(client, "embed", inputs=["a"]) == ("outputs", [[1.0]])
