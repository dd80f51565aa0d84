"""Names of libraries that are not public: each is here yet, and does what it is called for."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from clipseg_model.modeling.onednn import OPERATORS
from clipseg_model.runtime import torch_compile
from clipseg_model.runtime.torch_compile import allow_shapes, share_graphs


def test_torch_has_the_operators_of_onednn() -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip('this torch is built without oneDNN')
    missing = [name for name in OPERATORS if not hasattr(torch.ops.mkldnn, name)]
    assert not missing, (
        f'torch {torch.__version__} has no torch.ops.mkldnn.{", ".join(missing)}: models run '
        'slower on CPUs until clipseg_model/modeling/onednn.py calls what takes their place'
    )


def test_torch_compile_takes_many_shapes() -> None:
    config: Any = torch._dynamo.config
    assert hasattr(config, 'recompile_limit'), (
        f'torch {torch.__version__} has no torch._dynamo.config.recompile_limit: change '
        'clipseg_model/runtime/torch_compile.py'
    )
    before = config.recompile_limit
    with allow_shapes(99):
        assert config.recompile_limit == 99
    assert config.recompile_limit == before


def test_torch_compile_keeps_its_graphs_where_they_are_shared() -> None:
    from torch._inductor import cudagraph_trees

    # The source: the names themselves are there for the thread that first imported the module.
    source = inspect.getsource(cudagraph_trees)
    missing = [name for name in torch_compile.GRAPH_STATE if f'local.{name}' not in source]
    assert not missing, (
        f'torch {torch.__version__} has no torch._inductor.cudagraph_trees.local.'
        f'{", ".join(missing)}: a thread that has not compiled fails on a GPU until '
        'clipseg_model/runtime/torch_compile.py shares what takes their place'
    )


def test_graphs_of_one_thread_are_known_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether that one has imported torch's part for them, as pytest's may have, or not."""
    from torch._inductor import cudagraph_trees

    def container() -> Any:
        share_graphs()
        return cudagraph_trees.get_container(0)

    imported = cudagraph_trees.get_container(0)
    monkeypatch.setattr(torch_compile, '_graphs', {})
    assert container() is imported
    assert in_new_thread(container) is imported

    monkeypatch.setattr(cudagraph_trees, 'local', threading.local())
    monkeypatch.setattr(torch_compile, '_graphs', {})
    first = in_new_thread(container)
    assert first is not imported
    assert in_new_thread(container) is container() is first


def in_new_thread(act: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result(10)
