"""The Inception networks against PyTorch's, on random weights of the real layout."""

import hashlib
import io

import fid_tools
import numpy as np
import pytest
from keras.ops import convert_to_numpy

from galip_keras.downloads.sources import SOURCES
from galip_keras.metrics import features
from galip_keras.metrics.inception import inception

pytestmark = [pytest.mark.every_backend, pytest.mark.extra("torch", "torch")]

FID_FILE = "pt_inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="module")
def pytorch():
    """torch-fidelity's network, with random weights and statistics."""
    import torch

    module = fid_tools.load("torch_fidelity.feature_extractor_inceptionv3")
    network = module.FeatureExtractorInceptionV3
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *args, **kwargs: {})
        patch.setattr(network, "load_state_dict", lambda self, state: None)
        network = network("inception", ["2048"], feature_extractor_weights_path="none")
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif name.endswith("bn.weight"):
            # So that the signal survives forty layers without batch statistics.
            tensor.uniform_(1.0, 2.0)
        elif name.endswith(("bn.bias", "running_mean")):
            tensor.normal_(0.0, 0.1)
        elif name.endswith("conv.weight"):
            tensor.normal_(0.0, tensor[0].numel() ** -0.5)
    return network


@pytest.fixture(scope="module")
def state(pytorch):
    return {name: tensor.numpy() for name, tensor in pytorch.state_dict().items()}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3), dtype="uint8")


def test_features_equal_pytorch(pytorch, state, images):
    import torch

    (expected,) = pytorch(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    inputs = (images.astype("float32") - 128) / 128
    actual = convert_to_numpy(inception(state).predict_on_batch(inputs))
    assert expected.shape == (2, 2048)
    scale = expected.abs().max().item()
    assert scale > 0.01
    np.testing.assert_allclose(actual, expected.numpy(), atol=1e-4 * scale)


def test_torchvision_pools_differently(state, images):
    inputs = images[:1] / np.float32(255)
    ours, theirs = (
        convert_to_numpy(inception(state, is_torchvision).predict_on_batch(inputs))
        for is_torchvision in (False, True)
    )
    # Of the last block, the last 192 channels pool directly: by mean, not by maximum.
    last = np.abs(theirs - ours)[0, -192:] / np.abs(ours[0, -192:]).mean()
    assert last.mean() > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("Mixed_6c.branch7x7_2.conv.weight"), "Mixed_6c.*is missing"),
        (lambda s: s.update({"Mixed_9.x": np.zeros(1)}), "does not have.*Mixed_9.x"),
        (
            lambda s: s.update({"Mixed_7c.branch1x1.bn.bias": np.zeros(7)}),
            r"Mixed_7c.branch1x1.bn.bias of shape \(320,\) has the shape \(7,\)",
        ),
    ],
)
def test_missing_surplus_and_misshapen_tensors(state, change, message):
    state = dict(state)
    change(state)
    with pytest.raises(ValueError, match=message):
        inception(state)


# Wherever files come from, the network is the same.
once = pytest.mark.backend("tensorflow")


@pytest.fixture
def torch_home(monkeypatch, tmp_path):
    """An empty folder where PyTorch keeps its downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@once
def test_weights_are_fetched_by_name(pytorch, images, torch_home, web, monkeypatch):
    import torch

    content = io.BytesIO()
    torch.save(pytorch.state_dict(), content)
    content = content.getvalue()
    monkeypatch.setenv("GALIP_MIRROR", web.address)
    with pytest.raises(ValueError, match=rf"{FID_FILE} could not .*404.* `weights`"):
        features.build_extractor("fid-inception")
    web.files[FID_FILE] = content
    with pytest.raises(ValueError, match=r"not the right file: .* its name says 67268"):
        features.build_extractor("fid-inception")
    # Random weights have another digest than the one in the name.
    digest = hashlib.sha256(content).hexdigest()
    source = SOURCES[FID_FILE]._replace(sha256=digest[:8])
    monkeypatch.setitem(SOURCES, FID_FILE, source)
    extractor = features.build_extractor("fid-inception")
    assert extractor.name == "inception"
    assert extractor(images[:1]).shape == (1, 2048)
    count = len(web.asked)
    features.build_extractor("inception-clean")
    assert len(web.asked) == count
    missing = torch_home / FID_FILE
    with pytest.raises(ValueError, match=f"no file {missing}: leave out `weights`"):
        features.build_extractor("inception", weights=missing)


@once
def test_weights_are_found_where_pytorch_keeps_them(pytorch, images, torch_home):
    import torch

    torch_home.mkdir(parents=True)
    torch.save(pytorch.state_dict(), torch_home / FID_FILE)
    found = features.build_extractor("inception")(images)
    assert found.shape == (2, 2048)
    assert found.dtype == "float32"
    inputs = images / np.float32(127.5) - 1
    network = inception({k: v.numpy() for k, v in pytorch.state_dict().items()})
    expected = convert_to_numpy(network.predict_on_batch(inputs))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    (torch_home / FID_FILE).write_bytes(b"no weights")
    with pytest.raises(ValueError, match="no file of PyTorch weights"):
        features.build_extractor("inception")


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (300, 200), (500, 700)])
def test_images_are_resized_as_in_pytorch_fid(size):
    import torch

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype="uint8")
    tensor = torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(255))
    expected = torch.nn.functional.interpolate(
        tensor, (299, 299), mode="bilinear", align_corners=False
    )
    expected = expected[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(features._bilinear(image, 299), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (300, 200), (500, 700)])
def test_images_are_resized_as_in_clean_fid(size):
    resize = fid_tools.load("cleanfid.resize").build_resizer("clean")
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype="uint8")
    expected = resize(image) / 255
    np.testing.assert_allclose(features._bicubic(image, 299), expected, atol=1e-5)
