"""The programs in tools/, as modules."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from deployments import ROOT


def tool(name: str) -> ModuleType:
    """Import ``tools/NAME.py``."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # which dataclasses asks for
    spec.loader.exec_module(module)
    return module
