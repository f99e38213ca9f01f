"""Names of the version before the packages still import, with a warning."""

import importlib
import sys

import pytest

import galip_keras

# Every name that the documentation and the notebooks of that version showed.
NAMES = """
augmentation.augment backend.devices.alone callbacks.say
checkpoints.write_folder clip.FrozenCLIP clip.byte_pair_tokenizer clip.load_clip
clip.random_clip convert.clip_from_state convert.convert
convert.discriminator_from_state convert.generator_from_state
convert.read_vocabulary datasets.birds.ATTRIBUTES datasets.birds.bird
datasets.birds.captions datasets.drawing.draw datasets.pipeline.training_batches
datasets.prepare editing.combine editing.interpolate editing.invert editing.load
editing.mix editing.point editing.save evaluation.draw_curves
evaluation.evaluate export.export exported.Exported exported.load gan.GALIP
grid.image_grid layers.GeneratorBlock layers.ResizeConv2D loading.describe
loading.find_preset loading.halve loading.load_discriminator loading.load_model
loading.set_precision losses.clip_similarity losses.hinge_fake losses.hinge_real
losses.matching_aware_penalty losses.range_penalty mate_d.MateD
mate_g.BridgeFeaturePredictor mate_g.MateG mate_g.PromptPredictor
metrics.classifier.build metrics.distances.frechet_distance
metrics.pictures.of_folder metrics.r_precision philox.noise prompts.clean
pytorch.read_state settings.make_folder sharing.push text_to_image.ARCHITECTURES
text_to_image.GALIPBackbone text_to_image.GALIPTextToImage
text_to_image.GALIPTextToImagePreprocessor text_to_image.build
text_to_image.noise text_to_image.preset_folder training.Run training.train
"""

# What was public in the package itself.
PUBLIC = """
BridgeFeaturePredictor FrozenCLIP GALIP GALIPBackbone GALIPTextToImage
GALIPTextToImagePreprocessor MateD MateG PromptPredictor evaluate noise train
"""


@pytest.fixture
def forget_old_modules():
    """Make every import of an old module the first one."""

    def forget():
        for name in [*sys.modules]:
            loader = getattr(sys.modules[name], "__loader__", None)
            if type(loader).__module__ == "galip_keras._moved":
                del sys.modules[name]
                package, _, module = name.rpartition(".")
                vars(sys.modules[package]).pop(module, None)

    forget()
    yield
    forget()


@pytest.mark.usefixtures("forget_old_modules")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES.split())
def test_an_old_name_imports(name):
    module, _, name = f"galip_keras.{name}".rpartition(".")
    assert getattr(importlib.import_module(module), name) is not None


def test_public_names_are_kept():
    assert set(PUBLIC.split()) <= set(galip_keras.__all__)


@pytest.mark.usefixtures("forget_old_modules")
@pytest.mark.parametrize(
    ("statement", "new"),
    [
        ("from galip_keras.losses import hinge_real", "galip_keras.models.losses"),
        ("from galip_keras import editing", "sampling.latent and galip_keras.sampling"),
        ("from galip_keras.training import train", "galip_keras.training.run"),
        ("from galip_keras.convert import convert", "galip_keras.convert.galip"),
    ],
)
def test_an_old_name_warns_where_it_is_used(statement, new):
    with pytest.warns(DeprecationWarning, match=new) as caught:
        exec(compile(statement, "script.py", "exec"), {})
    assert {warning.filename for warning in caught} == {"script.py"}


def test_what_never_was_is_no_module():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("galip_keras.nothing")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = importlib.import_module("galip_keras.training").nothing
