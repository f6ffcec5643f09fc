"""The autoencoder of fields in physical units: units, sizes, complex fields, and files that give back the same bits."""

import pytest
import torch

from scidiff.errors import InputError
from scidiff.nn.autoencoder import ConvAutoencoder
from scidiff.priors import FieldAutoencoder, load_autoencoder
from scidiff.priors.pretrained import bundled, bundled_autoencoders, read_card, save_pretrained
from scidiff.protocols import Autoencoder


def network(channels=1, seed=5, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = ConvAutoencoder(channels, **{"latent": 3, "width": (4, 6), "blocks": 1, **options})
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=g))
    return made


def test_codes_do_not_depend_on_the_units(generator):
    kelvin = FieldAutoencoder(network(), loc=280.0, scale=5.0)
    celsius = FieldAutoencoder(network(), loc=280.0 - 273.15, scale=5.0)
    assert isinstance(kelvin, Autoencoder) and kelvin.stride == 4
    x = 280 + 5 * torch.randn(2, 1, 48, 40, generator=generator, dtype=torch.float64)
    z = kelvin.encode(x)
    assert z.shape == (2, *kelvin.latent_shape((1, 48, 40))) and z.dtype == torch.float64
    torch.testing.assert_close(celsius.encode(x - 273.15), z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(celsius.decode(z) + 273.15, kelvin.decode(z))
    torch.testing.assert_close(kelvin.decode(z[:1]), kelvin.decode(z)[:1])
    u = (x.float() - 280) / 5
    torch.testing.assert_close(z.float(), kelvin.network.encode(u)[0], rtol=1e-4, atol=1e-4)


def test_sampling_reaches_the_code_and_never_the_weights(generator):
    made = FieldAutoencoder(network(codebook=6))
    z = torch.randn(1, 3, 4, 2, generator=generator, requires_grad=True)
    made.decode(z).square().sum().backward()
    assert z.grad is not None and z.grad.abs().max() > 0
    assert all(p.grad is None for p in made.network.parameters())


def test_complex_fields_have_two_channels(generator):
    made = FieldAutoencoder(network(2), scale=0.3, complex=True)
    x = torch.randn(2, 1, 8, 12, generator=generator, dtype=torch.complex64)
    assert made.latent_shape((1, 8, 12)) == (3, 2, 3)
    z = made.encode(x)
    assert not z.is_complex() and made.decode(z).dtype == torch.complex64
    u = torch.cat([x.real, x.imag], 1) / 0.3
    torch.testing.assert_close(z, made.network.encode(u)[0])
    with pytest.raises(ValueError, match="even number of real channels"):
        FieldAutoencoder(network(1), complex=True)


def test_other_sides_are_padded_and_cropped(generator):
    made = FieldAutoencoder(network())
    for grid, code in (((10, 13), (3, 3, 4)), ((8, 12), (3, 2, 3))):
        bound = made.on(grid)
        x = torch.randn(2, 1, *grid, generator=generator)
        assert bound.latent_shape((1, *grid)) == code
        z = bound.encode(x)
        assert z.shape[1:] == code and bound.decode(z).shape == x.shape
        edge = torch.nn.functional.pad(x, (0, -grid[1] % 4, 0, -grid[0] % 4), mode="replicate")
        torch.testing.assert_close(z, made.encode(edge))
        torch.testing.assert_close(bound.decode(z), made.decode(z)[..., : grid[0], : grid[1]])
        assert bound.identity == made.identity


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((1, 3, 16), r"at least 4 points, found \(3, 16\)"),
        ((1, 16, 18), r"multiples of the stride 4, found \(16, 18\)"),
        ((2, 16, 16), "codes 1 channels on a 2-D grid"),
        ((1, 16), "codes 1 channels on a 2-D grid"),
    ],
)
def test_fields_that_do_not_fit(shape, match):
    made = FieldAutoencoder(network())
    with pytest.raises(ValueError, match=match):
        made.latent_shape(shape)
    with pytest.raises(ValueError, match=match):
        made.encode(torch.zeros(1, *shape))


def test_grids_that_cannot_be_padded():
    with pytest.raises(ValueError, match="a periodic field cannot be padded"):
        FieldAutoencoder(network(padding="periodic")).on((16, 18))
    with pytest.raises(ValueError, match="at least the stride 4"):
        FieldAutoencoder(network()).on((3, 18))
    with pytest.raises(ValueError, match="found \\(16, 16\\); ask for another with on"):
        FieldAutoencoder(network()).on((16, 18)).latent_shape((1, 16, 16))
    with pytest.raises(ValueError, match="at least 8 points"):
        FieldAutoencoder(network(padding="reflect")).latent_shape((1, 4, 8))


@pytest.mark.parametrize("codebook", [0, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_saved_is_loaded_to_the_bit(codebook, dtype, tmp_path, generator):
    net = network(codebook=codebook).to(dtype).float()  # weights that the file can hold
    made = FieldAutoencoder(net, loc=2.0, scale=torch.tensor([3.0]), units="s-1")
    card = {"channels": 1, "loc": 2.0, "scale": [3.0], "complex": False, "units": "s-1"}
    save_pretrained(net, tmp_path / "a.safetensors", card, dtype=dtype)
    back = load_autoencoder(tmp_path / "a.safetensors")
    x = torch.randn(1, 1, 8, 12, generator=generator)
    assert torch.equal(back.encode(x), made.encode(x)) and back.units == "s-1"
    assert torch.equal(back.decode(made.encode(x)), made.decode(made.encode(x)))
    assert back.identity == made.identity and back.card["network"]["codebook"] == codebook
    assert FieldAutoencoder(network(seed=6), loc=2.0, scale=3.0).identity != made.identity
    assert FieldAutoencoder(net, loc=2.5, scale=torch.tensor([3.0])).identity != made.identity
    (tmp_path / "a.json").write_text((tmp_path / "a.json").read_text().replace('"latent": 3', '"latent": 4'))
    with pytest.raises(InputError, match="the weights do not fit the network of the card"):
        load_autoencoder(tmp_path / "a.safetensors")


def test_bundled_names_are_told_apart():
    assert not set(bundled()) & set(bundled_autoencoders())
    for name in bundled_autoencoders():
        card = read_card(name)
        assert card["network"]["kind"] == "ConvAutoencoder" and card["stride"] >= 2
    with pytest.raises(InputError, match="expected one of the bundled autoencoders"):
        load_autoencoder("nothing")
