"""What can be fetched by name: where it is, how large, and under whose licence."""

from __future__ import annotations

import os
from typing import NamedTuple

AUTHORS = "https://github.com/tobran/GALIP"
_NON_COMMERCIAL = f"CC BY-NC-SA 4.0, no commercial use ({AUTHORS})"
_OPENAI = "MIT (https://github.com/openai/CLIP)"

_DRIVE = "drive:"
_HUB = "hf:"


class Source(NamedTuple):
    """A file of another project.

    Attributes:
        address: string. `"drive:ID"` of Google Drive, `"hf:USER/REPO/FILE"` of the
            Hugging Face hub, or a URL.
        megabytes: int. About how large it is; 0 if unknown.
        license: string. Its licence, and the page that says so.
        must_accept: bool. Whether the user is asked to accept the licence.
        sha256: string. The first digits of its SHA-256, where its publisher gives them.
    """

    address: str
    megabytes: int
    license: str
    must_accept: bool = False
    sha256: str = ""

    @property
    def hub_file(self) -> tuple[str, str] | None:
        """The repository and the file in it, if it is on the Hugging Face hub."""
        if not self.address.startswith(_HUB):
            return None
        user, repository, file = self.address.removeprefix(_HUB).split("/", 2)
        return f"{user}/{repository}", file

    @property
    def drive_id(self) -> str | None:
        """The id, if it is on Google Drive."""
        found = self.address.removeprefix(_DRIVE)
        return found if found != self.address else None

    @property
    def page(self) -> str:
        """The address for a browser."""
        if self.drive_id:
            return f"https://drive.google.com/file/d/{self.drive_id}/view"
        if self.hub_file:
            endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
            repository, file = self.hub_file
            return f"{endpoint}/{repository}/resolve/main/{file}"
        return self.address


# The weights of a CLIP on the Hugging Face hub: the file to prefer, and the older one.
CLIP_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

# OpenAI's CLIPs by their names on the Hugging Face hub, with their megabytes.
CLIPS = {
    "clip-vit-base-patch32": 605,
    "clip-vit-base-patch16": 599,
    "clip-vit-large-patch14": 1711,
    "clip-vit-large-patch14-336": 1712,
}

# By their names in the cache and on a mirror. Sizes of the authors' files follow from
# the tensors in them: whether they hold more, such as optimizers, is unknown.
SOURCES = {
    "pre_coco.pth": Source(
        "drive:1gbfwDeD7ftZmdOFxfffCjKCyYfF4ptdl", 680, _NON_COMMERCIAL, True
    ),
    "pre_cc12m.pth": Source(
        "drive:1VnONvNRjuyHTzuLKBbozZ38-WIt7XZMC", 680, _NON_COMMERCIAL, True
    ),
    "birds_metadata.zip": Source(
        "drive:1I6ybkR7L64K8hZOraEZDuHh0cCJw5OUj", 0, _NON_COMMERCIAL, True
    ),
    "coco_metadata.zip": Source(
        "drive:15Fw-gErCEArOFykW3YTnLKpRcPgI_3AB", 0, _NON_COMMERCIAL, True
    ),
    "pt_inception-2015-12-05-6726825d.pth": Source(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        96,
        "Apache 2.0 (https://github.com/mseitzer/pytorch-fid)",
        sha256="6726825d",
    ),
    "inception_v3_google-0cc3c7bd.pth": Source(
        "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
        109,
        "BSD 3-Clause (https://github.com/pytorch/vision)",
        sha256="0cc3c7bd",
    ),
}


for _clip, _megabytes in CLIPS.items():
    for _file, _size in (
        *((_weights, _megabytes) for _weights in CLIP_WEIGHTS),
        ("vocab.json", 1),
        ("merges.txt", 1),
    ):
        _address = f"{_HUB}openai/{_clip}/{_file}"
        SOURCES[f"{_clip}/{_file}"] = Source(_address, _size, _OPENAI)


class Model(NamedTuple):
    """A model that others trained, made from files of theirs.

    Attributes:
        description: string.
        checkpoint: string. A key of `SOURCES`.
        megabytes: int. About how much is fetched, CLIP included.
    """

    description: str
    checkpoint: str
    megabytes: int

    @property
    def license(self) -> str:
        """The licence of its checkpoint, and the page that says so."""
        return SOURCES[self.checkpoint].license


# By the names that stand for them wherever a model is asked for.
MODELS = {
    "galip_coco": Model(
        "GALIP's authors' model of COCO, everyday scenes at 224 pixels",
        "pre_coco.pth",
        1300,
    ),
    "galip_cc12m": Model(
        "GALIP's authors' model of CC12M, images of the web at 224 pixels",
        "pre_cc12m.pth",
        1300,
    ),
}


def size(megabytes: int) -> str:
    """A size in words, such as `"1.3 GB"`."""
    if not megabytes:
        return "size unknown"
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes} MB"
