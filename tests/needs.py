"""What tests need and pip does not install: programs, and packages of npm."""

import os
from typing import TypeVar

import pytest

Found = TypeVar("Found")


def needed(name: str, found: Found | None) -> Found:
    """``found``; where it is nothing, the test is skipped, and on CI, where everything has to be there, it fails."""
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    return found
