"""Hugging Face's and Kaggle's hubs, as folders on disk.

The doubles take the arguments of the libraries' own functions: a call that the library
would refuse fails here, too.
"""

import pathlib
import shutil
import types
from unittest import mock

import huggingface_hub
import kagglehub


class Hubs:
    """Both hubs: `hubs("user/model")` is the folder of a model."""

    def __init__(self, root):
        self.root = root

    def __call__(self, name):
        folder = pathlib.Path(self.root, name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def replace(self, monkeypatch):
        """Put the doubles in the place of the libraries' functions."""
        for library, functions in (
            (
                huggingface_hub,
                (
                    self.create_repo,
                    self.file_exists,
                    self.upload_file,
                    self.upload_folder,
                    self.snapshot_download,
                ),
            ),
            (kagglehub, (self.model_upload, self.model_download)),
        ):
            for function in functions:
                name = function.__name__
                double = mock.create_autospec(
                    getattr(library, name), side_effect=function
                )
                monkeypatch.setattr(library, name, double)

    # === huggingface_hub ===
    def create_repo(self, repo_id, exist_ok):
        assert exist_ok
        return types.SimpleNamespace(repo_id=repo_id)

    def file_exists(self, repo_id, filename):
        return (self(repo_id) / filename).is_file()

    def upload_file(self, path_or_fileobj, path_in_repo, repo_id):
        shutil.copy(path_or_fileobj, self(repo_id) / path_in_repo)

    def upload_folder(self, repo_id, folder_path):
        shutil.copytree(folder_path, self(repo_id), dirs_exist_ok=True)

    def snapshot_download(self, repo_id):
        return str(self(repo_id))

    # === kagglehub ===
    def model_upload(self, handle, local_model_dir):
        shutil.copytree(local_model_dir, self(handle), dirs_exist_ok=True)

    def model_download(self, handle):
        return str(self(handle))
