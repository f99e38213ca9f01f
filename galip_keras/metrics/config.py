"""The settings of an evaluation."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

# Each metric, with the smallest number of images that it can be computed on.
METRICS = {
    "fid": 2,
    "kid": 2,
    "cmmd": 2,
    "clip-score": 1,
    "r-precision": 100,
    "precision-recall": 4,
    "diversity": 2,
}

# The networks that `fid`, `kid` and `precision-recall` can compare images by.
FEATURES = (
    "clip",
    "inception",
    "inception-clean",
    "inception-torchvision",
    "inception-keras",
    "toybirds",
)

# Other names of these networks.
ALIASES = {"fid-inception": "inception"}

# The scorer that a model is measured by unless another is given.
OWN_CLIP = "the model's own CLIP"

# How the images of a folder can be read: as for training, or as pytorch-fid does.
READERS = ("training", "pytorch-fid")

_Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What to evaluate, and how.

    Args:
        model: string. As for `galip_keras.presets.loading.load_model`. It generates one
            image per caption of the split: first for the first caption of every image,
            then for the second captions, and so on.
        dataset: string. As for `galip_keras.datasets.prepare`. Captions and real images
            come from it.
        images: path. A folder of images to evaluate instead of `model`.
        real: path. A folder of real images, instead of those of `dataset`.
        reader: string. One of `READERS`: how the images of folders are read.
        split: string. The split of `dataset`. Defaults to the test split if there is
            one.
        metrics: sequence of keys of `METRICS`. Defaults to all that can be computed.
        features: string. One of `FEATURES` or `ALIASES`: the network for `fid`, `kid`
            and `precision-recall`.
        num_images: int. The number of images to evaluate. Defaults to the size of the
            split or of the folder.
        seed: int. The seed of the first generated image. The next images count up from
            it.
        scorer: string. A second CLIP that scores images against captions, as
            `galip_keras.convert.clip.load_any_clip` takes it.
        weights: path. The file of Inception weights. By default it is where PyTorch
            keeps its downloads, or is fetched.
        statistics: path. An `.npz` file with the mean and covariance of real images,
            instead of real images.
        save_statistics: path. Where to write the mean and covariance of the real
            images.
        out: path. A folder for `report.json`, `report.md` and sample images.
        data_dir: path. Where prepared datasets live.
        captions: path. As for `galip_keras.datasets.prepare`.
        image_column: string. As for `galip_keras.datasets.prepare`.
        caption_column: string. As for `galip_keras.datasets.prepare`.
        caption: string. As for `galip_keras.datasets.prepare`.
        caption_from: string. As for `galip_keras.datasets.prepare`.
        precision: string. What the model computes in, as for
            `galip_keras.presets.loading.load_model`.

    Raises:
        ValueError: If it is not clear what to evaluate.
    """

    model: str | None = None
    dataset: str | None = None
    images: _Path | None = None
    real: _Path | None = None
    reader: str = "training"
    split: str | None = None
    metrics: Sequence[str] | None = None
    features: str = "clip"
    num_images: int | None = None
    seed: int = 0
    scorer: str | None = None
    weights: _Path | None = None
    statistics: _Path | None = None
    save_statistics: _Path | None = None
    out: _Path | None = None
    data_dir: _Path | None = None
    captions: str | None = None
    image_column: str | None = None
    caption_column: str | None = None
    caption: str | None = None
    caption_from: str | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        if (self.model is None) == (self.images is None):
            raise ValueError("give either a `model` or a folder of `images`")
        if self.model is not None and self.dataset is None:
            raise ValueError("give a `dataset`: the model needs captions")
        if self.reader not in READERS:
            raise ValueError(f"`reader` must be one of {', '.join(READERS)}")
        if self.reader != "training" and self.images is None and self.real is None:
            raise ValueError("`reader` is for folders: give `images` or leave it out")
        if self.model is None and (self.precision, self.seed) != ("float32", 0):
            raise ValueError(
                "`precision` and `seed` are for a `model`: leave them out for `images`"
            )
