import ast
import sys
from pathlib import Path

import pytest

import vlae.core

MODULES = sorted(Path(vlae.core.__file__).parent.rglob("*.py"))
ALLOWED = {"torch", "einops", "jaxtyping", "vlae.core"}
COMPILED = {"numba", "numpy"}
"""What is compiled is written for NumPy's arrays; so is what calls it."""
THREADS = {"scipy.linalg.cython_blas", "threading", "threadpoolctl"}
"""The loops' threads share the pixels, each with products of its own."""
KEPT = {"hashlib", "logging", "pathlib", "tempfile"}
"""Only what was compiled is kept in files."""
ALSO = {name: COMPILED for name in ("elements", "flows", "fused", "loops", "painting", "step")} | {"compiled": COMPILED | KEPT | THREADS}
"""The core knows no files, no clock, no printing and no process: of the standard library it takes what is pure."""
PURE = {"collections.abc", "contextlib", "dataclasses", "functools", "inspect", "itertools", "math", "re", "typing"}


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_core_stands_on_torch_einops_and_jaxtyping_alone_but_for_what_is_compiled(path):
    also = ALSO.get(path.stem, set())
    for name in imported(ast.parse(path.read_text())):
        if name in also or name.split(".")[0] in also:
            continue
        assert name in PURE or any(name == top or name.startswith(top + ".") for top in ALLOWED), name
        assert name in PURE or name.split(".")[0] not in sys.stdlib_module_names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_core_prints_nothing_and_seeds_nothing(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {
                "print",
                "open",
                "torch.manual_seed",
                "torch.seed",
                "torch.set_default_dtype",
                "torch.save",
                "torch.load",
            }
