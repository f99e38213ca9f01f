"""Models that cannot be found by name."""

import pytest

from galip_keras.files import MANIFEST
from galip_keras.presets.loading import find_preset

pytestmark = pytest.mark.every_backend


def test_an_export_is_no_preset(tmp_path):
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(ValueError, match="this export is for `galip sample`"):
        find_preset(tmp_path)
