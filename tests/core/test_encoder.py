import pytest
import torch
import torch.nn.functional as F

from vlae.core.encoder import GridEncoder, GridMap, Pyramid, VectorEncoder, VectorMap
from vlae.core.layers import DenseBlock, ResBlock

from .build import near, randomise

PYRAMIDS = {
    "the paper's binary one": Pyramid((4, 4, 6, 6), (0, 1, 1, 0)),
    "resnet": Pyramid((3, 4, 5), (2, 2, 3)),
    "densenet": Pyramid((3, 4, 5), (2, 2, 3), "densenet"),
    "one level": Pyramid((3,), (1,)),
    "no blocks": Pyramid((3, 4), (0, 0)),
}
SIZES = [(28, 28), (1, 1), (7, 5), (1, 9), (13, 2), (32, 20)]
each_pyramid = pytest.mark.parametrize("pyramid", PYRAMIDS.values(), ids=PYRAMIDS)
each_size = pytest.mark.parametrize("size", SIZES, ids=str)


@each_pyramid
@each_size
@torch.no_grad()
def test_vector_codes_of_images_of_any_size(pyramid, size):
    encoder = VectorEncoder(pyramid, (3, *size), dims=4, hidden=6, flow=None, context=2)
    posterior = encoder(torch.randn(2, 3, *size))
    assert posterior.mean.shape == posterior.log_std.shape == (2, 4) and posterior.context.shape == (2, 2)
    assert encoder.code_shape(*size) == (4,)
    assert VectorMap(pyramid, size, 4, 6, outputs=5)(posterior.mean, size).shape == (2, 5, *size)


@each_pyramid
@each_size
@torch.no_grad()
def test_grid_codes_of_images_of_any_size(pyramid, size):
    encoder = GridEncoder(pyramid, 3, channels=2, flow=None, context=1)
    posterior = encoder(torch.randn(2, 3, *size))
    assert posterior.mean.shape[1:] == posterior.log_std.shape[1:] == encoder.code_shape(*size)
    assert posterior.context.shape[1:] == (1, *pyramid.grid(*size))
    code_map = GridMap(pyramid, 2, outputs=5)
    assert code_map(posterior.mean, size).shape == (2, 5, *size)
    whole = code_map.up(code_map.first(posterior.mean))
    assert whole.shape[2] >= size[0] and whole.shape[3] >= size[1]


@each_pyramid
def test_a_grid_is_the_size_halved_again_and_again(pyramid):
    for height, width in SIZES:
        rows, columns = height, width
        for _ in range(len(pyramid.widths) - 1):
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
        assert pyramid.grid(height, width) == (rows, columns)


@pytest.mark.parametrize("name", ["resnet", "densenet", "the paper's binary one"])
@torch.no_grad()
def test_a_grid_encoder_reads_a_crop_as_it_reads_the_whole(name):
    """Away from the border of the crop, and the map of the code likewise."""
    pyramid, step = PYRAMIDS[name], 2 ** PYRAMIDS[name].levels
    encoder, code_map = randomise(GridEncoder(pyramid, 1, 2, None, 0)), randomise(GridMap(pyramid, 2, 3))
    whole = torch.randn(1, 1, 40 * step, 32 * step)
    crop = whole[:, :, 2 * step : 34 * step, step : 29 * step]
    margin = 13
    near(
        encoder(crop).mean[:, :, margin:-margin, margin:-margin],
        encoder(whole).mean[:, :, 2 + margin : 34 - margin, 1 + margin : 29 - margin],
    )
    z = torch.randn(1, 2, 40, 32)
    inside, spread = margin * step, code_map(z, (40 * step, 32 * step))
    part = code_map(z[:, :, 2:34, 1:29], (32 * step, 28 * step))
    near(part[:, :, inside:-inside, inside:-inside], spread[:, :, 2 * step + inside : 34 * step - inside, step + inside : 29 * step - inside])


@pytest.mark.parametrize("kind, block, count", [("resnet", ResBlock, 9), ("densenet", DenseBlock, 4)])
def test_a_dense_block_stands_for_two_residual_ones(kind, block, count):
    """Of about their width: three steps that each add a third of the channels."""
    net = Pyramid((12, 24, 24), (2, 2, 3), kind).down(3)
    assert sum(isinstance(m, block) for m in net.modules()) == count
    dense = [m for m in net.modules() if isinstance(m, DenseBlock)]
    assert all(len(d.steps) == 3 and sum(s.v.shape[0] for s in d.steps) == d.merge.v.shape[0] for d in dense)


def test_the_papers_binary_encoder():
    """Three strided blocks of 16, 32 and 32 maps, and one plain block between every two of them."""
    net = Pyramid((16, 16, 32, 32), (0, 1, 1, 0)).down(1)
    assert [(b.first.v.shape[1], b.first.v.shape[0], b.first.stride) for b in net] == [
        (1, 16, 2),
        (16, 16, 1),
        (16, 32, 2),
        (32, 32, 1),
        (32, 32, 2),
    ]


@pytest.mark.parametrize("raw", [-700.0, -30.0, 0.0, 5.0, 300.0])
def test_standard_deviations_are_positive_and_finite(raw):
    encoder = GridEncoder(Pyramid((2,), (1,)), 1, 1, None, 0)
    with torch.no_grad():
        encoder.out.g.zero_()
        encoder.out.b.copy_(torch.tensor([0.0, raw]))
    posterior = encoder(torch.randn(1, 1, 2, 2))
    wanted = F.softplus(torch.tensor(raw)) + 1e-4
    near(posterior.log_std.exp(), wanted.expand(1, 1, 2, 2))


def test_every_part_of_an_image_reaches_a_vector_code():
    encoder, v = randomise(VectorEncoder(PYRAMIDS["resnet"], (1, 9, 7), 3, 5, None, 0)), torch.randn(2, 1, 9, 7, requires_grad=True)
    encoder(v).mean.square().sum().backward()
    assert (v.grad != 0).all()
