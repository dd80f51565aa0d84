from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
import torch
from tiny_models import WORDS, make_small_clip

from clipseg_model.errors import PromptError
from clipseg_model.modeling.backbone import Backbone, build_backbone, interpolate_positions
from clipseg_model.modeling.bundled.lite0 import Lite0Stem
from clipseg_model.modeling.bundled.small_clip import SmallClip
from clipseg_model.modeling.clipseg import CLIPSeg


@pytest.fixture(autouse=True)
def _grad_free() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope='module')
def towers() -> SmallClip:
    return make_small_clip().eval()


def pixels(height: int = 64, width: int = 64, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(5))


class TestStem:
    def test_shape_at_stride_16(self) -> None:
        assert Lite0Stem()(pixels(64, 96, 2)).shape == (2, 272, 4, 6)

    def test_is_frozen(self) -> None:
        assert not any(parameter.requires_grad for parameter in Lite0Stem().parameters())

    def test_fine_features_keep_their_place(self) -> None:
        """A change in one corner of the image moves the nearest token most."""
        torch.manual_seed(0)
        stem = Lite0Stem()
        image = pixels(128, 128)
        other = image.clone()
        other[..., :16, 112:] += 3
        change = (stem(other) - stem(image))[0].norm(dim=0)
        assert divmod(int(change.argmax()), 8) == (0, 7)


class TestImageTower:
    def test_is_a_backbone(self, towers: SmallClip) -> None:
        assert isinstance(towers, Backbone)
        assert (towers.token_width, towers.embed_dim, towers.num_blocks) == (32, 16, 3)

    def test_taps_in_order_and_no_block_after_the_deepest(self, towers: SmallClip) -> None:
        ran: list[int] = []
        handles = [
            block.register_forward_hook(lambda *_, number=number: ran.append(number))
            for number, block in enumerate(towers.blocks)
        ]
        try:
            taps, grid = towers.image_tokens(pixels(), [0, 1])
        finally:
            for handle in handles:
                handle.remove()
        assert ran == [0, 1]
        assert grid == (4, 4)
        torch.testing.assert_close(towers.blocks[1](taps[0]), taps[1])

    @pytest.mark.parametrize('size', [(64, 64), (96, 160), (32, 16)])
    def test_any_grid(self, towers: SmallClip, size: tuple[int, int]) -> None:
        taps, grid = towers.image_tokens(pixels(*size, batch=2), [2])
        assert grid == (size[0] // 16, size[1] // 16)
        assert taps[0].shape == (2, 1 + grid[0] * grid[1], 32)
        assert towers.embed_images(pixels(*size)).shape == (1, 16)

    def test_positions_are_interpolated_as_clipsegs_are(self, towers: SmallClip) -> None:
        ours = towers._position_embedding((3, 7))
        torch.testing.assert_close(ours, interpolate_positions(towers.positions, (4, 4), (3, 7)))
        assert torch.equal(ours[0], towers.positions[0])
        assert torch.equal(towers._position_embedding((4, 4)), towers.positions)

    @pytest.mark.parametrize('size', [(60, 64), (64, 70)])
    def test_sides_that_are_no_multiple_of_the_patch(
        self, towers: SmallClip, size: tuple[int, int]
    ) -> None:
        with pytest.raises(ValueError, match='16'):
            towers.image_tokens(pixels(*size), [0])

    def test_embedding_is_the_projected_cls_token(self, towers: SmallClip) -> None:
        taps, _ = towers.image_tokens(pixels(), [2])
        assert torch.equal(towers.embed_images(pixels()), towers.project(taps[0][:, 0]))


class TestTextTower:
    def test_vocabulary_travels_in_the_weights(self, towers: SmallClip) -> None:
        packed = towers.state_dict()['text.vocabulary'].numpy().tobytes()
        assert zlib.decompress(packed).decode().split('\n') == list(WORDS)
        pieces, mask = towers.text.tokenize(['The RED mug', 'a cup'])
        red = [WORDS.index(word) for word in ('the', 'red', 'mug')]
        assert pieces[0].tolist() == red
        assert pieces[1, :2].tolist() == [WORDS.index('a'), WORDS.index('cup')]
        assert mask.tolist() == [[True] * 3, [True, True, False]]

    def test_a_prompt_does_not_depend_on_its_neighbours(self, towers: SmallClip) -> None:
        texts = ['a mug', 'something to sit on', 'the red cup left of the blue chair']
        together = towers.embed_texts(texts)
        for index, text in enumerate(texts):
            torch.testing.assert_close(
                together[index], towers.embed_texts([text])[0], rtol=1e-4, atol=1e-5
            )

    def test_words_and_their_order_matter(self, towers: SmallClip) -> None:
        vectors = towers.embed_texts(['red mug', 'blue mug', 'mug red'])
        assert (vectors[0] - vectors[1]).abs().max() > 1e-3
        assert (vectors[0] - vectors[2]).abs().max() > 1e-4

    @pytest.mark.parametrize('text', ['茶碗', 'кружка', '☕', 'zzz qqq'])
    def test_a_prompt_of_unknown_pieces_only(self, towers: SmallClip, text: str) -> None:
        with pytest.raises(PromptError, match=text):
            towers.embed_texts(['a mug', text])

    def test_a_prompt_of_too_many_pieces_is_refused(self, towers: SmallClip) -> None:
        most = towers.text.max_pieces
        assert towers.embed_texts(['mug ' * most]).shape == (1, towers.embed_dim)
        with pytest.raises(PromptError, match=f'{most + 1} word pieces.* {most} at most'):
            towers.embed_texts(['mug ' * (most + 1)])

    def test_one_known_word_is_enough(self, towers: SmallClip) -> None:
        assert torch.isfinite(towers.embed_texts(['茶碗 mug'])).all()

    def test_the_table_is_eight_bit(self, towers: SmallClip) -> None:
        table = towers.state_dict()['text.table']
        assert table.dtype == torch.int8
        words = towers.text.words(torch.tensor([[6]]))
        torch.testing.assert_close(words[0, 0], table[6] * towers.text.scale)


def test_configuration_rebuilds_the_towers(towers: SmallClip) -> None:
    rebuilt = build_backbone(towers.config())
    assert isinstance(rebuilt, SmallClip)
    rebuilt.load_state_dict(towers.state_dict(), strict=True)
    assert torch.equal(rebuilt.embed_texts(['a mug']), towers.embed_texts(['a mug']))
    assert torch.equal(rebuilt.embed_images(pixels()), towers.embed_images(pixels()))
    assert rebuilt.config() == towers.config()


def test_the_bundled_size_fits_ten_megabytes() -> None:
    """At two bytes a weight, and one for each value of a 30,522 × 64 table."""
    towers = SmallClip(vocabulary_size=30_522, vocabulary_bytes=110_000)
    model = CLIPSeg(towers, [1, 2, 3], dim=64, feedforward=256, head='refined')
    stored = sum(
        value.numel() * (2 if value.is_floating_point() else 1)
        for value in model.state_dict().values()
    )
    assert stored < 10_000_000
