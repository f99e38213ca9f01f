"""The service, over a model that draws its prompt's length and its seed."""

import base64
import concurrent.futures
import io
import operator
import random
import re
import signal
import socket
import threading
import time

import numpy as np
import pytest
import tiny
from fastapi.testclient import TestClient
from PIL import Image
from service import (
    PREDICT,
    Model,
    free_port,
    pixel,
    served,
    until,
    wait_until_drawing,
    wait_until_queued,
    wait_until_ready,
)

from galip_keras.serving.app import create_app

needs_grpc = pytest.mark.extra("grpc", "tensorflow_serving")

# It knows no backend.
pytestmark = pytest.mark.backend("tensorflow")


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def client(model):
    with TestClient(create_app(model), raise_server_exceptions=False) as client:
        wait_until_ready(client)
        model.batches.clear()
        yield client


def decoded(content):
    return pixel(base64.b64decode(content))


def test_predict_by_row_and_by_column(client):
    rows = [{"prompt": "an owl", "seed": 7}, {"prompt": {"b64": "YQ=="}, "seed": 9}]
    response = client.post(PREDICT, json={"instances": rows})
    assert response.status_code == 200
    found = [decoded(x["b64"]) for x in response.json()["predictions"]]
    assert found == [(6, 7, 10), (1, 9, 10)]
    columns = {"prompt": ["an owl", "a"], "seed": [7, 9]}
    for path in (PREDICT, "/v1/models/galip/versions/1:predict"):
        response = client.post(path, json={"inputs": columns})
        assert [decoded(x["b64"]) for x in response.json()["outputs"]] == found


def test_status_and_metadata(client):
    (version,) = client.get("/v1/models/galip").json()["model_version_status"]
    assert version["state"] == "AVAILABLE"
    metadata = client.get("/v1/models/galip/metadata").json()
    signature = metadata["metadata"]["signature_def"]["signature_def"]
    assert signature["serving_default"]["inputs"].keys() == {"prompt", "seed"}


def test_openai_s_images(client):
    asked = {"prompt": "an owl", "n": 2, "seed": 3, "model": "galip", "user": "me"}
    response = client.post("/v1/images/generations", json=asked)
    assert response.status_code == 200
    data = response.json()["data"]
    assert [decoded(x["b64_json"]) for x in data] == [(6, 3, 10), (6, 4, 10)]
    seeds = [
        client.post("/v1/images/generations", json={"prompt": "x"}).json()["data"][0]
        for _ in range(2)
    ]
    assert seeds[0]["seed"] != seeds[1]["seed"]
    assert client.get("/v1/models").json()["data"][0]["id"] == "galip"


GENERATIONS = "/v1/images/generations"


def test_what_openai_s_client_does_not_set_is_null(client):
    asked = dict.fromkeys(("n", "size", "stream", "output_format", "seed", "style"))
    response = client.post(GENERATIONS, json={"prompt": "an owl", **asked})
    assert response.status_code == 200


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_an_image_has_the_format_that_was_asked_for(client, file_format):
    asked = {"prompt": "an owl", "output_format": file_format, "size": "2x2"}
    (found,) = client.post(GENERATIONS, json=asked).json()["data"]
    image = Image.open(io.BytesIO(base64.b64decode(found["b64_json"])))
    assert image.format == file_format.upper()


@pytest.mark.parametrize(
    ("field", "value", "status", "code"),
    [
        ("stream", True, 400, None),
        ("output_format", "gif", 400, None),
        ("response_format", "url", 400, None),
        ("size", "1024x1024", 400, "invalid_value"),
        ("size", "", 400, "invalid_value"),
        ("model", "dall-e-2", 404, "model_not_found"),
    ],
)
def test_what_is_not_there_is_refused_as_openai_does(
    client, field, value, status, code
):
    response = client.post(GENERATIONS, json={"prompt": "an owl", field: value})
    assert response.status_code == status
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert field in (error["param"] or error["message"])
    assert error["code"] == code


def test_openai_s_clients_find_the_model(client):
    found = client.get("/v1/models/galip").json()
    assert (found["id"], found["object"]) == ("galip", "model")
    response = client.get("/v1/models/dall-e-2")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_pages_elsewhere_are_let_in_by_name(model):
    headers = {"Origin": "https://example.org"}
    for origins, allowed in (([], None), (["https://example.org"], headers["Origin"])):
        with TestClient(create_app(model, cors_origins=origins)) as client:
            answer = client.get("/healthz", headers=headers)
            assert answer.headers.get("access-control-allow-origin") == allowed
            asked = {**headers, "Access-Control-Request-Method": "POST"}
            assert client.options(GENERATIONS, headers=asked).is_success == bool(
                allowed
            )


def test_an_image_for_a_browser(client):
    response = client.get(
        "/image", params={"prompt": "owl", "seed": 2, "truncation": 0}
    )
    assert response.headers["content-type"] == "image/png"
    assert pixel(response.content) == (3, 2, 0)


@pytest.mark.parametrize("path", ["/image", "/interpolation"])
def test_fresh_seeds_come_from_the_system(client, path):
    def seed():
        random.seed(0)
        np.random.seed(0)
        asked = {"prompt": "a", "other": "b"}
        return client.get(path, params=asked).headers["x-seed"]

    assert seed() != seed()


def test_an_image_between_two_prompts(client, model):
    asked = {"prompt": "a" * 10, "other": "b" * 30, "weight": 0.25}
    response = client.get("/interpolation", params=asked)
    assert pixel(response.content) == (15, 15, 15)
    for wrong in ({"weight": 2}, {"weight": "nan"}, {"other": ""}):
        assert client.get("/interpolation", params=asked | wrong).status_code == 400

    class Plain:
        generate = model.generate

    with TestClient(create_app(Plain())) as other:
        assert other.get("/interpolation", params=asked).status_code == 404


def test_an_interpolation_begins_with_the_image_of_its_prompt():
    network = tiny.text_to_image(0.05)
    with TestClient(create_app(network, batch_size=1)) as client:
        wait_until_ready(client)
        asked = {"prompt": "a red bird", "seed": 3, "truncation": 0.7}
        image = client.get("/image", params=asked).content
        # The second weight changes nothing but takes the way through embeddings.
        start, near = (
            client.get("/interpolation", params={**asked, "other": "x", "weight": w})
            for w in (0, 1e-12)
        )
    assert start.content == image
    pixels = [np.asarray(Image.open(io.BytesIO(x)), int) for x in (image, near.content)]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1


def test_a_page_where_it_is_asked_for(client):
    assert client.get("/").status_code == 404
    with TestClient(create_app(Model(), page=True, api_key="x")) as other:
        response = other.get("/")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/html")
        assert "<title>GALIP</title>" in response.text
        examples = re.findall(r"<option.*?>(.*?)</option>", response.text)
        assert examples == ["a red bird", "a castle by the sea"]


BAD = [
    {}, [], None, 1, "x", {"instances": []}, {"instances": [{}]}, {"inputs": {}},
    {"instances": [{"prompt": "a"}]}, {"instances": [{"seed": 1}]},
    {"instances": [{"prompt": "a", "seed": "1"}]},
    {"instances": [{"prompt": "a", "seed": 1.5}]},
    {"instances": [{"prompt": "a", "seed": True}]},
    {"instances": [{"prompt": "a", "seed": -1}]},
    {"instances": [{"prompt": "a", "seed": 2**63}]},
    {"instances": [{"prompt": "", "seed": 1}]},
    {"instances": [{"prompt": "a" * 2001, "seed": 1}]},
    {"instances": [{"prompt": {"b64": "%"}, "seed": 1}]},
    {"instances": [{"prompt": {"b64": "/w=="}, "seed": 1}]},
    {"instances": [{"prompt": "a", "seed": 1, "path": "/etc"}]},
    {"instances": [{"prompt": "a", "seed": 1}] * 17},
    {"inputs": {"prompt": ["a"], "seed": [1, 2]}},
    {"instances": [{"prompt": "a", "seed": 1}], "inputs": {"prompt": [], "seed": []}},
    {"instances": None, "inputs": None},
    {"instances": [{"prompt": "a", "seed": 1}], "signature_name": "generate"},
]  # fmt: skip


@pytest.mark.parametrize("content", BAD, ids=lambda x: str(x)[:40])
def test_bad_predictions(client, model, content):
    response = client.post(PREDICT, json=content)
    assert response.status_code == 400
    assert isinstance(response.json()["error"], str)
    assert model.batches == []


@pytest.mark.parametrize(
    "changes",
    [{"prompt": ""}, {"n": 0}, {"n": 17}, {"response_format": "url"}, {"seed": "x"}],
)
def test_bad_generations(client, changes):
    asked = {"prompt": "a", **changes}
    response = client.post("/v1/images/generations", json=asked)
    assert response.status_code == 400
    assert response.json()["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"instances": NaN}', b"[" * 60000, b'"\\ud800"']
)
def test_broken_json(client, body):
    assert client.post(PREDICT, content=body).status_code == 400


def test_other_refusals(client):
    assert client.post(PREDICT, content=b"x" * 70_000).status_code == 413
    assert client.get("/image").status_code == 400
    assert client.get("/image?prompt=a&truncation=nan").status_code == 400
    assert client.get("/image?prompt=a&seed=-1").status_code == 400
    assert client.get("/nothing").json() == {"error": "there is nothing here"}
    assert client.get(PREDICT).status_code == 405
    assert client.get("/v1/models/other").status_code == 404
    answer = client.post("/v1/models/other:predict", json={"instances": ["a"]})
    assert answer.status_code == 404
    assert answer.json() == {"error": "the model 'other' does not exist: this is galip"}
    answer = client.post("/v1/models/galip")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


def test_what_fails_tells_nothing(client, caplog):
    response = client.get("/image", params={"prompt": "break"})
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "/secret/path" in caplog.text
    # It goes on.
    assert client.get("/image", params={"prompt": "a"}).status_code == 200


def test_requests_are_drawn_together(client, model):
    model.release.clear()
    with concurrent.futures.ThreadPoolExecutor(17) as pool:
        first = pool.submit(client.get, "/image?prompt=first")
        wait_until_drawing(client, model)
        others = [
            pool.submit(client.get, f"/image?prompt=a&seed={i}") for i in range(16)
        ]
        wait_until_queued(client, 16)
        model.release.set()
        assert first.result().status_code == 200
        found = [pixel(future.result().content) for future in others]
    assert found == [(1, i, 10) for i in range(16)]
    assert [len(batch) for batch in model.batches] == [1, 8, 8]


def test_mixed_truncations_and_sizes_that_were_warmed_up(client, model):
    model.release.clear()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        first = pool.submit(client.get, "/image?prompt=first")
        wait_until_drawing(client, model)
        others = [
            pool.submit(client.get, f"/image?prompt=a&seed={i}&truncation={i % 2}")
            for i in range(5)
        ]
        wait_until_queued(client, 5)
        model.release.set()
        first.result()
        found = [pixel(future.result().content) for future in others]
    assert found == [(1, i, 10 * (i % 2)) for i in range(5)]
    assert all(len(batch) in (1, 2, 4, 8) for batch in model.batches)


def test_a_full_queue_is_told():
    model = Model()
    with TestClient(create_app(model, max_queue=2)) as client:
        wait_until_ready(client)
        model.release.clear()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            first = pool.submit(client.get, "/image?prompt=a")
            wait_until_drawing(client, model)
            waiting = pool.submit(
                client.post, "/v1/images/generations", json={"prompt": "a", "n": 2}
            )
            wait_until_queued(client, 2)
            refused = client.get("/image?prompt=a")
            model.release.set()
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert first.result().status_code == 200
            assert waiting.result().status_code == 200


def test_what_takes_too_long_is_given_up():
    model = Model()
    with TestClient(create_app(model, timeout=0.2)) as client:
        wait_until_ready(client)
        model.release.clear()
        assert client.get("/image?prompt=a").status_code == 503
        model.release.set()
        assert client.get("/image?prompt=a").status_code == 200


def test_a_key():
    with TestClient(create_app(Model(), api_key="secret")) as client:
        wait_until_ready(client)
        assert client.get("/image?prompt=a").status_code == 401
        wrong = {"Authorization": "Bearer secrets"}
        assert client.get("/image?prompt=a", headers=wrong).status_code == 401
        for header in (
            {"Authorization": "Bearer secret"},
            {"X-API-Key": "secret"},
            {"X-API-Key": "", "Authorization": "Bearer secret"},
        ):
            assert client.get("/image?prompt=a", headers=header).status_code == 200
        assert client.get("/healthz").status_code == 200


def test_metrics(client):
    client.get("/image?prompt=a")
    for i in range(3):
        client.get(f"/nothing/{i}")
    text = client.get("/metrics").text
    assert 'galip_requests_total{route="/image",status="200"} 1.0' in text
    assert 'galip_requests_total{route="other",status="404"} 3.0' in text
    assert "galip_pictures_total 1.0" in text
    assert "galip_queue_pictures 0.0" in text


def test_the_interfaces_are_described(client):
    document = client.get("/openapi.json").json()
    assert {PREDICT, "/image", "/v1/images/generations"} <= document["paths"].keys()
    predict = document["paths"][PREDICT]["post"]["requestBody"]["content"]
    assert predict["application/json"]["schema"]["$ref"].endswith("/Predict")
    found = document["components"]["schemas"]
    names = [x["$ref"].split("/")[-1] for x in found["Predict"]["anyOf"]]
    assert names == ["ServingDefault", "Embed", "Generate"]
    assert all("instances" in found[name]["properties"] for name in names)
    instance = found["ServingDefaultInstance"]
    assert instance["properties"].keys() == {"prompt", "seed"}
    token_ids = found["GenerateInstance"]["properties"]["token_ids"]
    assert (token_ids["minItems"], token_ids["maxItems"]) == (3, 3)
    assert client.get("/docs").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_others_need_a_key(galip, host):
    code, output, errors = galip("serve", "--host", host)
    assert (code, output) == (2, "")
    assert "give --api-key KEY" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "option",
    ["--port", pytest.param("--grpc-port", marks=needs_grpc)],
)
def test_a_port_that_is_taken(galip, option):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, output, errors = galip("serve", option, taken.getsockname()[1])
    assert (code, output) == (1, "")
    assert f"give another {option}." in errors
    assert errors.count("\n") == 1


@pytest.mark.slow
def test_the_command_is_killed_comes_back_and_drains():
    import httpx

    asked = {"prompt": "a red bird", "n": 16, "seed": 3}
    stop = threading.Event()
    port = free_port()
    counts = [0] * 8

    def wait_for_answers():
        """Wait until every client has got another image."""
        before = [*counts]
        until(lambda: all(map(operator.lt, before, counts)), 60)

    def insist(seed):
        """Retry while the service is away. Return images and failures."""
        found, failures = set(), 0
        address = f"http://127.0.0.1:{port}/image?prompt=a+red+bird&seed={seed}"
        with httpx.Client() as client:
            while not stop.is_set():
                try:
                    response = client.get(address)
                except httpx.HTTPError:
                    failures += 1
                    time.sleep(0.1)
                else:
                    assert response.status_code == 200
                    found.add(response.content)
                    counts[seed] += 1
        return found, failures

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        try:
            with served(port) as (process, _):
                clients = [pool.submit(insist, seed) for seed in range(8)]
                wait_for_answers()
                process.kill()
                process.wait()
            with served(port) as (process, address):
                wait_for_answers()
                stop.set()
                for client in clients:
                    found, failures = client.result()
                    assert failures > 0
                    assert_alike(found)
                answers = pool.map(
                    lambda _: httpx.post(
                        f"{address}/v1/images/generations", json=asked, timeout=60
                    ),
                    range(8),
                )
                # All are there, but for the batches that were drawn meanwhile.
                until(lambda: queued(address) >= 8 * 16 - 4 * 8, 60)
                process.send_signal(signal.SIGTERM)
                answers = list(answers)
                _, errors = process.communicate(timeout=60)
        finally:
            stop.set()
    assert [a.status_code for a in answers] == [200] * 8
    images = [x["b64_json"] for a in answers for x in a.json()["data"]]
    assert len(images) == 8 * 16
    assert_alike({base64.b64decode(x) for x in images[::16]})
    assert process.returncode in (0, -signal.SIGTERM, 143)
    assert "Traceback" not in errors


def assert_alike(files):
    """Check that files show one image, up to rounding in batches of several sizes."""
    first, *others = (np.asarray(Image.open(io.BytesIO(x)), int) for x in files)
    assert first.std() > 10
    for other in others:
        assert np.abs(first - other).max() <= 1


def queued(address):
    import httpx

    text = httpx.get(f"{address}/metrics").text
    (line,) = [x for x in text.splitlines() if x.startswith("galip_queue_pictures ")]
    return float(line.split()[1])
