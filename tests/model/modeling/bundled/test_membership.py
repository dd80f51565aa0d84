"""Names and classes by a table do what a matrix of ones and zeros did."""

from __future__ import annotations

import torch
from tiny_models import make_photo_model
from torch.nn.functional import normalize

from clipseg_model.modeling.bundled.membership import mean_of_names, sum_of_names, tabulate
from clipseg_model.modeling.bundled.photo_clip import PhotoClip
from clipseg_model.registry import BUNDLED, WEIGHTS_FOLDER

NAMES, CLASSES = 7, 5
MEMBERS = torch.tensor([[6, 0], [0, 3], [2, 3], [2, 0], [4, 1], [2, 3]], dtype=torch.int16)


def matrix() -> torch.Tensor:
    dense = torch.zeros(NAMES, CLASSES)
    dense[MEMBERS[:, 0].long(), MEMBERS[:, 1].long()] = 1
    return dense


def test_sums_and_means_are_those_of_the_matrix() -> None:
    table = tabulate(MEMBERS, NAMES, CLASSES)
    assert table.shape == (CLASSES, 2), 'a pair that comes twice counts once'
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 3, NAMES, generator=generator)
    torch.testing.assert_close(sum_of_names(values, table), values @ matrix())
    vectors = torch.randn(NAMES, 4, generator=generator)
    expected = normalize(matrix(), p=1, dim=0).T @ vectors
    torch.testing.assert_close(mean_of_names(vectors, table), expected)


def test_no_members_are_no_error() -> None:
    table = tabulate(MEMBERS[:0], NAMES, CLASSES)
    assert not sum_of_names(torch.ones(1, NAMES), table).any()


def test_the_table_is_that_of_the_members_which_were_loaded() -> None:
    towers = make_photo_model().backbone
    assert isinstance(towers, PhotoClip)
    assert towers.names_of_classes()[5].tolist() == [0, 2]
    state = {key: value.clone() for key, value in towers.state_dict().items()}
    assert not any('_table' in key for key in state), 'it is not stored'
    state['members'] = torch.tensor([[1, 5], [1, 7], [2, 6], [0, 6]], dtype=torch.int16)
    towers.load_state_dict(state)
    assert towers.names_of_classes()[5].tolist() == [1, 3]
    # As weights are filled in, which tells the model nothing.
    towers.state_dict()['members'].copy_(torch.tensor([[0, 5]] * 4))
    towers.eval()
    assert towers.names_of_classes()[5].tolist() == [0]


def test_bundled_graphs_have_no_such_matrix() -> None:
    """14 MB each, in float32: a graph of less than 1 MB cannot make it but by a scatter."""
    for name in BUNDLED:
        for graph in WEIGHTS_FOLDER.glob(f'{name}.*.onnx'):
            assert b'Scatter' not in graph.read_bytes(), graph.name
