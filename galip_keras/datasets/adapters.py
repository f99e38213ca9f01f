"""Datasets that another library knows by name, with an image and a text in each row.

Columns are guessed, or given after the name: `NAME:image_key,text_key`. Either key may
be left out, as in `NAME:,text_key`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from galip_keras.datasets import archives, records
from galip_keras.datasets.records import Record
from galip_keras.images import ImageError

_CAPTION_KEYS = ("captions", "caption", "text", "texts", "sentences", "sentence") + (
    "prompt",
    "prompts",
)

# Enough for any number of rows, so that all names are equally long.
_DIGITS = 9

_Path = tuple[str, ...]


class _Source(NamedTuple):
    """The parts of what follows the first colon. Keys may be empty."""

    name: str
    image_key: str
    text_key: str


def _parse(source: str) -> _Source:
    # The name may contain colons, and there are always two keys.
    name, colon, keys = source.rpartition(":")
    if not colon or keys.count(",") != 1:
        return _Source(source, "", "")
    image_key, _, text_key = keys.partition(",")
    return _Source(name, image_key.strip(), text_key.strip())


class FromTFDS(records.CaptionedImages):
    """Builder of records from the records of another tensorflow-datasets builder.

    The text is the first feature called `captions`, `caption`, `text` and so on. If
    there is none, it is "a photo of a ..." with the name of the only class label.
    """

    description = "Images and captions from a dataset of tensorflow-datasets."

    @classmethod
    def configure(cls, name: str, source: str, **options: Any) -> records.Config:
        if not _parse(source).name:
            raise ValueError(
                "give the name of a dataset, as in tfds:NAME or "
                "tfds:NAME:image_key,text_key"
            )
        return super().configure(_label(source), source, **options)

    def _splits(self, dl_manager, skipped):
        source = _parse(self.builder_config.source)
        builder = self._prepared(source.name)
        sizes = builder.info.splits
        splits = [split for split in sizes if sizes[split].num_examples]
        splits = _with_train_first(source.name, splits)
        # Sorted, because features read from a file come in varying order.
        features = dict(sorted(_leaves(builder.info.features), key=itemgetter(0)))
        image = _image_feature(source, features)
        text = _text_feature(source, features)
        self.info.metadata["note"] = _note(builder, text, features[text])
        read = _reader(builder, image, text, features[text])
        return {split: read(split) for split in splits}

    def _prepared(self, name: str) -> tfds.core.DatasetBuilder:
        """The other builder, with its records prepared in the same folder."""
        try:
            builder = tfds.builder(name, data_dir=self._data_dir_root)
        except tfds.core.DatasetNotFoundError as error:
            raise ValueError(f"tensorflow-datasets has no dataset {name}") from error
        except Exception as error:
            raise ValueError(f"tfds:{name}: {_first_line(error)}") from error
        try:
            with archives.few_retries():
                builder.download_and_prepare(
                    download_config=tfds.download.DownloadConfig(try_download_gcs=False)
                )
        except ImportError as error:
            raise ValueError(
                f"{name} needs a package: pip install {error.name}"
            ) from error
        except Exception as error:
            # Any exception, because every dataset has its own code.
            raise OSError(
                f"{name} cannot be prepared by tensorflow-datasets: "
                f"{_first_line(error)}"
            ) from error
        return builder


class FromHub(records.CaptionedImages):
    """Builder of records from what Hugging Face's `datasets` library loads.

    The source is a dataset on the Hugging Face hub, in its state at preparation, or a
    folder in one of the library's layouts. Its code is never run.
    """

    description = "Images and captions from a dataset of Hugging Face's."

    @classmethod
    def configure(cls, name: str, source: str, **options: Any) -> records.Config:
        parsed = _parse(source)
        if not parsed.name:
            raise ValueError(
                "give the name of a dataset, as in hf:USER/NAME or "
                "hf:USER/NAME:image_key,text_key"
            )
        folder = Path(parsed.name).expanduser()
        if not folder.is_dir():
            return super().configure(_label(source), source, **options)
        # Every state of a folder is a dataset of its own.
        path = str(folder.resolve())
        source = path + source.removeprefix(parsed.name)
        return super().configure(_label(source, _files(path)), source, **options)

    def _splits(self, dl_manager, skipped):
        source = _parse(self.builder_config.source)
        loaded = _load(source.name)
        splits = _with_train_first(source.name, list(loaded))
        image, text = _columns(source, loaded["train"].features)
        return {split: _rows(loaded[split], image, text) for split in splits}


def _label(source: str, files: Iterable[tuple] = ()) -> str:
    """A readable name for a configuration, different for every source."""
    digest = hashlib.sha256(source.encode("utf-8", "surrogateescape"))
    for file in files:
        digest.update(ascii(file).encode())
    label = re.sub(r"[^A-Za-z0-9_-]", "_", _parse(source).name)[-40:].strip("_")
    return f"{label}-{digest.hexdigest()[:16]}"


def _files(folder: str) -> Iterator[tuple[str, int, int]]:
    for parent, subfolders, names in os.walk(folder):
        subfolders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            # Not a dangling link.
            if os.path.isfile(path):
                stat = os.stat(path)
                yield path, stat.st_size, stat.st_mtime_ns


def _with_train_first(name: str, splits: list[str]) -> list[str]:
    if "train" not in splits:
        raise ValueError(f"{name} has no train split, only {', '.join(splits)}")
    return ["train", *(split for split in splits if split != "train")]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _name(index: int) -> str:
    return f"{index:0{_DIGITS}}"


# tensorflow-datasets


def _leaves(feature: Any, path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    """Yield the path and the feature of everything that is stored."""
    if isinstance(feature, tfds.features.FeaturesDict):
        for name, child in feature.items():
            yield from _leaves(child, (*path, name))
    elif isinstance(feature, tfds.features.Sequence):
        for inner, leaf in _leaves(feature.feature, path):
            # A caption cannot be about one of several images.
            if not isinstance(leaf, tfds.features.Image):
                yield inner, leaf
    else:
        yield path, feature


def _image_feature(source: _Source, features: Mapping[_Path, Any]) -> _Path:
    # A map of labels is not an image, and floating point images are stored as PNG
    # files that show something else.
    images = [
        path
        for path, feature in features.items()
        if type(feature) is tfds.features.Image and feature.np_dtype != np.float32
    ]
    return _choose(source, "image", source.image_key, images, images)


def _text_feature(source: _Source, features: Mapping[_Path, Any]) -> _Path:
    texts = [path for path, feature in features.items() if _is_text(feature)]
    labels = [path for path, feature in features.items() if _is_label(feature)]
    captions = [path for key in _CAPTION_KEYS for path in texts if key in path]
    return _choose(
        source, "text", source.text_key, texts + labels, captions[:1] or labels
    )


def _is_label(feature: Any) -> bool:
    return isinstance(feature, tfds.features.ClassLabel)


def _is_text(feature: Any) -> bool:
    return isinstance(feature, tfds.features.Tensor) and feature.np_dtype == np.object_


def _choose(
    source: _Source, kind: str, key: str, known: list[_Path], guesses: list[_Path]
) -> _Path:
    """The known column called `key`, or the guess if there is no key."""
    chosen = [path for path in known if _same(path, key)] if key else guesses
    if len(chosen) == 1:
        return chosen[0]
    if not known:
        raise ValueError(f"{source.name} has no {kind}: choose another dataset")
    problem = f"has no {kind} {key}" if key else f"has no obvious {kind}"
    raise ValueError(
        f"{source.name} {problem}: give {source.name}:image_key,text_key, where the "
        f"{kind} is one of {', '.join(map('/'.join, known))}"
    )


def _same(path: _Path, key: str) -> bool:
    # Names may contain either separator.
    return "/".join(path).replace(".", "/") == key.replace(".", "/")


def _note(builder: tfds.core.DatasetBuilder, path: _Path, feature: Any) -> str:
    name = builder.info.full_name
    if _is_label(feature):
        return (
            f"{name} of tensorflow-datasets has no captions: they are "
            f'"a photo of a ..." with the names of {"/".join(path)}'
        )
    return f"captions are {'/'.join(path)} of {name} of tensorflow-datasets"


def _reader(builder: tfds.core.DatasetBuilder, image: _Path, text: _Path, feature: Any):
    """A function from a split to its records."""
    decoders: Any = tfds.decode.SkipDecoding()
    for name in reversed(image):
        decoders = {name: decoders}
    # Every example is read only once.
    config = tfds.ReadConfig(try_autocache=False)

    def read(split: str) -> Iterator[Record]:
        examples = builder.as_dataset(
            split=split, decoders=decoders, read_config=config
        )
        for index, example in enumerate(tfds.as_numpy(examples)):
            captions = _captions(feature, _at(example, text))
            yield Record(_name(index), captions, _at(example, image))

    return read


def _at(example: Any, path: _Path) -> Any:
    for name in path:
        example = example[name]
    return example


def _captions(feature: Any, value: Any) -> list[str]:
    # `value` is a ragged tensor if the feature is a list of lists.
    values = np.ravel(getattr(value, "flat_values", value)).tolist()
    if not _is_label(feature):
        return [text.decode("utf-8", "replace") for text in values]
    # A negative number means no label. An image may show several objects of a kind.
    names = [feature.int2str(number) for number in values if number >= 0]
    return [f"a photo of a {name.replace('_', ' ')}" for name in dict.fromkeys(names)]


# Hugging Face's


def _load(name: str) -> Mapping[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            "hf:NAME needs the datasets library: pip install 'galip-keras[hf]'"
        ) from error
    try:
        with archives.no_warnings("huggingface_hub"):
            return datasets.load_dataset(name)
    except Exception as error:
        # The hub, its client, the network, Arrow and files raise errors of their own.
        raise OSError(f"hf:{name} cannot be loaded: {_first_line(error)}") from error


def _columns(source: _Source, features: Mapping[str, Any]) -> tuple[str, str]:
    import datasets

    images: list[_Path] = [
        (name,)
        for name, feature in features.items()
        if isinstance(feature, datasets.Image)
    ]
    texts: list[_Path] = [
        (name,) for name, feature in features.items() if _is_string(feature)
    ]
    captions = [path for key in _CAPTION_KEYS for path in texts if key in path]
    (image,) = _choose(source, "image", source.image_key, images, images)
    (text,) = _choose(source, "text", source.text_key, texts, captions[:1])
    return image, text


def _is_string(feature: Any) -> bool:
    """Whether a column holds strings or lists of strings."""
    feature = getattr(feature, "feature", feature)
    return getattr(feature, "dtype", None) in ("string", "large_string")


def _rows(table: Any, image: str, text: str) -> Iterator[Record]:
    import datasets

    columns = table.select_columns([image, text])
    # As encoded files, not as pixels.
    rows = columns.cast_column(image, datasets.Image(decode=False))
    for index, row in enumerate(rows):
        captions = row[text] or []
        if isinstance(captions, str):
            captions = [captions]
        yield Record(_name(index), [c for c in captions if c], _image(row[image]))


def _image(value: dict[str, Any] | None) -> Any:
    if value is None:
        return ImageError("no image")
    # Images in a folder are stored as paths.
    return value["bytes"] or value["path"]
