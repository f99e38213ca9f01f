"""What needs more than `pip install "galip-keras[test]"`."""

from typing import Any

import pytest


def need(extra: str, *modules: str) -> Any:
    """Import the modules of an extra and return the last, or skip what needs them."""
    reason = f'needs pip install "galip-keras[{extra}]"'
    for name in modules:
        module = pytest.importorskip(name, reason=reason)
    return module


def without_torchvision(package: str) -> None:
    """Skip: the package asks for torchvision, which no test uses."""
    pytest.skip(
        f'needs pip install "galip-keras[torch]" and pip install --no-deps {package}'
    )
