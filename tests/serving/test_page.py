"""The page of `galip serve --ui` in a real browser."""

import shutil

import extras
import numpy as np
import pytest
from service import serving

from galip_keras.serving.app import create_app

sync_playwright = extras.need("dev", "playwright.sync_api").sync_playwright

# It does not depend on the backend.
pytestmark = [pytest.mark.backend("tensorflow"), pytest.mark.slow]


class Model:
    """Draws red for short prompts, blue for long ones."""

    latent_dim = 4

    def generate(self, inputs, seed=None, truncation=1.0):
        return self.decode(None, self.embed(inputs))

    def embed(self, inputs):
        return np.array([[len(x) > 12] for x in inputs], "float32")

    def decode(self, noise, text_embeddings):
        blue = text_embeddings[:, :, None, None] * np.ones((1, 1, 64, 64))
        colors = np.concatenate([1 - blue, 0 * blue, blue], 1)
        return np.round(255 * colors.transpose(0, 2, 3, 1)).astype("uint8")


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium")
    with sync_playwright() as playwright:
        options = {"executable_path": path, "args": ["--no-sandbox"]}
        yield playwright.chromium.launch(**options)


@pytest.fixture
def page(browser):
    with serving(create_app(Model(), page=True)) as address:
        page = browser.new_page(viewport={"width": 900, "height": 800})
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        yield page
        assert problems == []
        page.close()


def color(page, selector):
    """The red, green and blue at the top left of an image."""
    return page.eval_on_selector(
        selector,
        """async image => {
            await image.decode();
            const canvas = document.createElement("canvas");
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            return [...context.getImageData(9, 9, 1, 1).data].slice(0, 3);
        }""",
    )


def test_type_click_and_see_images(page):
    page.get_by_label("Prompt", exact=True).fill("a red bird")
    page.get_by_label("Images", exact=True).fill("3")
    page.get_by_role("button", name="Draw").click()
    page.get_by_text("3 images in").wait_for()
    assert page.locator("#gallery img").count() == 3
    assert color(page, "#gallery img") == [255, 0, 0]
    link = page.locator("#gallery a").first
    assert link.get_attribute("download") == "a-red-bird-0.png"
    with page.expect_download() as download:
        link.click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")


def test_the_slider_goes_to_another_prompt(page):
    page.get_by_label("Other prompt").fill("a long prompt for blue")
    slider = page.locator("#weight")
    for value, expected in (("1", [0, 0, 255]), ("0.4", [153, 0, 102])):
        with page.expect_response(lambda r, v=value: f"weight={v}" in r.url):
            slider.evaluate(
                "(x, v) => { x.value = v; x.dispatchEvent(new Event('input')); }", value
            )
        page.wait_for_timeout(200)
        assert color(page, "#mixed") == expected


def test_by_keyboard_alone(page):
    # The prompt has the focus, and Enter draws.
    page.keyboard.press("Control+A")
    page.keyboard.type("a much longer prompt")
    page.keyboard.press("Enter")
    page.get_by_text("4 images in").wait_for()
    assert color(page, "#gallery img") == [0, 0, 255]
    focused = []
    for _ in range(5):
        focused.append(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert focused == ["prompt", "seed", "count", "truncation", "draw"]


def test_everything_fits_on_a_phone(page):
    page.set_viewport_size({"width": 360, "height": 740})
    page.get_by_role("button", name="Draw").click()
    page.get_by_text("4 images in").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_errors_are_shown(page):
    page.route(
        "**/image?*", lambda route: route.fulfill(status=503, json={"error": "busy"})
    )
    page.get_by_role("button", name="Draw").click()
    page.get_by_text("busy").wait_for()
    assert page.get_by_role("button", name="Draw").is_enabled()
