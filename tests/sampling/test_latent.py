"""Points of the latent space: paths, sums, mixtures, inversion, and the commands."""

import json

import keras
import numpy as np
import pytest
import tiny
from PIL import Image

from galip_keras.sampling import inversion, latent

pytestmark = pytest.mark.every_backend


@pytest.fixture(scope="module")
def model():
    return tiny.text_to_image(0.06)


@pytest.fixture(scope="module")
def preset(model, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("presets") / "tiny")
    model.save_to_preset(folder)
    return folder


def differ(images, others):
    return np.abs(np.asarray(images, int) - np.asarray(others, int)).max()


def test_a_point_is_the_image_of_its_prompt_and_seed(model):
    point = latent.point(model, "a red bird", 3, truncation=0.7)
    drawn = model.decode(point.noise[None], point.text_embedding[None])
    expected = model.generate(["a red bird"], seed=3, truncation=0.7)
    assert drawn.dtype == np.uint8
    assert differ(drawn, expected) <= 1


def test_each_part_can_have_a_prompt_of_its_own(model):
    a, b = (latent.point(model, text, 0) for text in ("a red bird", "an owl"))
    count = model.backbone.generator.num_conditions
    assert count == 1 + len(model.backbone.generator.generator_blocks)

    def draw(parts):
        texts = latent.mix(model, a.text_embedding, b.text_embedding, parts)
        assert texts.shape == (count, len(a.text_embedding))
        return model.decode(a.noise[None], texts[None])

    plain, other = (model.decode(a.noise[None], p.text_embedding[None]) for p in (a, b))
    assert differ(draw([]), plain) <= 1
    assert differ(draw(range(count)), other) <= 1
    mixed = [draw([part]) for part in range(count)]
    assert all(differ(x, plain) > 1 for x in mixed)
    with pytest.raises(ValueError, match=f"blocks 0 to {count - 2}, and the bridge"):
        draw([count])


def test_a_wrong_number_of_embeddings_is_refused(model):
    latent = np.zeros((1, model.backbone.generator.latent_dim))
    texts = np.zeros((1, 7, model.backbone.clip.embedding_dim))
    with pytest.raises(ValueError, match=r"or one\. Received: 7"):
        model.backbone.generator(latent, texts)
    with pytest.raises(ValueError, match=r"`text_embeddings` .* shape=\(1, 7, "):
        model.decode(latent, texts)


def test_arcs_keep_the_length_of_noise():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 100))
    np.testing.assert_allclose(latent.slerp(a, b, 0), a)
    np.testing.assert_allclose(latent.slerp(a, b, 1), b)
    a, b = (x / np.linalg.norm(x) * 10 for x in (a, b))
    middle = latent.slerp(a, b, 0.5)
    assert np.linalg.norm(middle) == pytest.approx(10)
    assert np.linalg.norm(a + b) / 2 < 8
    # The angle is halved.
    assert middle @ a == pytest.approx(middle @ b)
    np.testing.assert_allclose(latent.slerp(a, a, 0.3), a)
    np.testing.assert_allclose(latent.slerp(a, np.zeros(100), 0.5), a / 2)


def test_a_path_goes_through_its_points(model):
    points = [
        latent.point(model, text, seed)
        for text, seed in (("a red bird", 0), ("an owl", 1), ("a tent", 2))
    ]
    path = latent.interpolate(points, 5)
    for i, point in enumerate(points):
        for ours, theirs in zip(path[2 * i], point):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    middle = (points[0].text_embedding + points[1].text_embedding) / 2
    np.testing.assert_allclose(path[1].text_embedding, middle, atol=1e-5)
    lengths = [np.linalg.norm(point.noise) for point in path]
    assert min(lengths) > 0.99 * min(lengths[::2])
    with pytest.raises(ValueError, match="two points"):
        latent.interpolate(points[:1], 5)


def test_sums_of_prompts(model):
    embed = model.embed(["a bird", "red", "blue"])
    total = embed[0] + embed[1] - embed[2]
    found = latent.combine(model, ["a bird", "a bird"], ["red"], ["blue"])
    assert found.shape == (2, len(total))
    length = np.linalg.norm(embed[0])
    expected = total * length / np.linalg.norm(total)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        latent.combine(model, ["a bird"])[0], embed[0], rtol=1e-5
    )


def test_inversion_finds_an_image_that_it_drew(model):
    image = model.generate("a red bird", seed=77)
    assert model.backbone.generator.trainable
    before = tiny.values(model.backbone.generator.trainable_variables)
    found = inversion.invert(model, image, "an owl", steps=200)
    assert found.error < 0.5 * found.start_error
    assert 0.9 < found.similarity <= 1.0001
    drawn = model.decode(found.point.noise[None], found.point.text_embedding[None])[0]
    np.testing.assert_array_equal(found.image, drawn)
    error = np.sqrt(np.mean((drawn.astype(float) - image) ** 2))
    assert found.error == pytest.approx(error)
    # Nothing else has changed.
    assert model.backbone.generator.trainable
    for ours, theirs in zip(model.backbone.generator.trainable_variables, before):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours), theirs)


def test_points_are_files(model, tmp_path):
    point = latent.point(model, "an owl", 5)
    latent.save(tmp_path / "p.npz", point)
    for ours, theirs in zip(latent.load(tmp_path / "p.npz", model), point):
        np.testing.assert_array_equal(ours, theirs)
    other = latent.Point(np.zeros(3), point.text_embedding)
    broken = latent.Point(point.noise * np.nan, point.text_embedding)
    for wrong in (other, broken):
        latent.save(tmp_path / "wrong.npz", wrong)
        with pytest.raises(ValueError, match="a point of another model"):
            latent.load(tmp_path / "wrong.npz", model)
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "code.npz", noise=np.array([print]), text_embedding=np.ones(2))
    np.savez(tmp_path / "others.npz", x=np.ones(2))
    for name in ("text", "code", "others"):
        with pytest.raises(ValueError, match="holds no point"):
            latent.load(tmp_path / f"{name}.npz", model)


# === Commands ===


@pytest.fixture
def edit(galip, preset, tmp_path):
    """Run an editing command. Return the paths that it prints, and its errors."""

    def run(command, *args):
        options = ["--model", preset, "--out", tmp_path]
        code, output, errors = galip(command, *args, *options)
        assert code == 0, errors
        return output.splitlines(), errors

    return run


def test_a_strip_from_prompt_to_prompt(edit, model):
    (path,), errors = edit("interpolate", "a red bird", "an owl", "--seeds", 4)
    assert errors == ""
    strip = Image.open(path)
    assert strip.size == (8 * 32, 32)
    assert json.loads(strip.getexif()[0x010E])["prompts"] == ["a red bird", "an owl"]
    ends = model.generate(["a red bird", "an owl"], seed=[4, 4])
    pixels = np.asarray(strip)
    assert differ(pixels[:, :32], ends[0]) <= 1
    assert differ(pixels[:, -32:], ends[1]) <= 1
    assert differ(pixels[:, :32], pixels[:, -32:]) > 1


def test_all_words_that_are_lost_are_in_one_warning(edit):
    prompts = [f"{'a bird, ' * 60}{color}" for color in ("red", "blue")]
    _, errors = edit("interpolate", "a bird", *prompts, "--seeds", 4)
    (line,) = errors.splitlines()
    assert "2 prompts are longer than the 77 tokens" in line
    assert line.endswith("bird, blue")
    assert "bird, red; " in line


def test_a_film_from_seed_to_seed(edit, model):
    args = ["an owl", "--seeds", "0-2", "--format", "gif", "--frames", 7, "--loop"]
    (path,), _ = edit("interpolate", *args)
    with Image.open(path) as film:
        assert film.n_frames == 7
        assert film.info["loop"] == 0
        assert film.info["duration"] == 80


@pytest.mark.extra("video", "imageio")
def test_an_mp4(edit):
    import imageio.v3 as imageio

    (path,), _ = edit("interpolate", "an owl", "--format", "mp4", "--frames", 9)
    assert imageio.imread(path, plugin="FFMPEG").shape == (9, 32, 32, 3)


def test_a_table_of_noise_and_prompts(edit, model):
    (path,), _ = edit("mix", "a red bird", "an owl", "a tent", "--seeds", "5,6")
    table = np.asarray(Image.open(path))
    assert table.shape == (2 * 32, 3 * 32, 3)
    cell = table[32:, 64:]
    assert differ(cell, model.generate(["a tent"], seed=6)[0]) <= 1


def test_a_prompt_swap_at_chosen_blocks(edit, model):
    args = ["mix", "a red bird", "an owl", "--seeds", 5, "--blocks"]
    (path,), _ = edit(*args, "bridge,1-2")
    row = np.asarray(Image.open(path))
    assert row.shape == (32, 3 * 32, 3)
    first, mixed, second = np.split(row, 3, axis=1)
    ends = model.generate(["a red bird", "an owl"], seed=[5, 5])
    assert differ([first, second], ends) <= 1
    assert differ(mixed, first) > 1
    (other,), _ = edit(*args, "1-2")
    assert other != path


def test_an_image_is_found_and_goes_on(edit, model, tmp_path):
    wide = np.tile(model.generate("a red bird", seed=9), (1, 2, 1))
    Image.fromarray(wide).resize((128, 64)).save(tmp_path / "bird.jpg")
    (pair, point), errors = edit("invert", tmp_path / "bird.jpg", "--steps", 3)
    assert Image.open(pair).size == (64, 32)
    assert errors.startswith("Pixels differ by ")
    assert latent.load(point, model)
    (path,), _ = edit("interpolate", point, "an owl", "--frames", 3)
    strip = np.asarray(Image.open(path))
    found = np.asarray(Image.open(pair))[:, 32:]
    assert differ(strip[:, :32], found) <= 1
    (path,), _ = edit("mix", point, "an owl", "--seeds", 0)
    assert Image.open(path).size == (2 * 32, 2 * 32)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["interpolate", "an owl", "--seeds", "3"], "two prompts, or two --seeds"),
        (["interpolate", "a", "b", "--seeds", "0-2"], "do not go together"),
        (["interpolate", "a", "b", "--frames", "1"], "--frames"),
        (["interpolate", "nowhere.npz", "b"], "nowhere.npz"),
        (["interpolate", "a", "b", "--truncation", "nan"], "--truncation must be"),
        (["mix", "a", "b", "--truncation", "nan"], "--truncation must be"),
        (["mix", "a"], "two prompts"),
        (["mix", "a", "b", "c", "--blocks", "1"], "two prompts"),
        (["mix", "a", "b", "--blocks", "3-1"], "'3-1' is not like"),
        (["mix", "a", "b", "--blocks", "99"], "blocks 0 to"),
        (["invert", "nowhere.png"], "nowhere.png"),
        (["invert", __file__], "is no image"),
    ],
)
def test_errors_are_one_line(galip, preset, tmp_path, args, words):
    code, output, errors = galip(*args, "--model", preset, "--out", tmp_path / "out")
    assert code in (1, 2)
    assert output == ""
    assert errors.startswith("Error: ")
    assert errors.count("\n") == 1
    assert words in errors
    assert not list(tmp_path.glob("out/*"))
