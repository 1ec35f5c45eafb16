import pytest
import torch

from dlvolt.networks import FCN, TCN, BiLSTM, Transformer, UNet
from dlvolt.networks.transformer import positional_encoding

FS = 1000.0
MODULES = {
    "tcn": lambda: TCN(channels=(8, 8), dropout=0.0),
    "transformer": lambda: Transformer(d_model=16, num_heads=2, num_layers=2, feedforward=16, dropout=0.0),
    "bilstm": lambda: BiLSTM(hidden_size=8),
    "fcn": lambda: FCN(FS, channels=(8, 8)),
    "unet": lambda: UNet(FS, base_channels=8, depth=3),
}


@pytest.fixture(params=MODULES)
def module(request):
    torch.manual_seed(0)
    return MODULES[request.param]()


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_samples", [1, 7, 100, 129])
def test_as_many_logits_come_out_as_samples_go_in(module, num_samples):
    logits = module(random(3, num_samples))
    assert logits.shape == (3, num_samples)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("training", [False, True])
def test_a_window_gets_the_same_answer_in_any_company_and_in_any_units(module, training):
    module.train(training)
    x = random(5, 100)
    with torch.no_grad():
        together, alone, scaled = module(x), module(x[2:3]), module(40 * x + 7)
    torch.testing.assert_close(alone, together[2:3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scaled, together, atol=2e-4, rtol=1e-3)


def test_parameters_are_those_of_the_published_settings():
    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    per_direction = 4 * 64 * (1 + 64 + 2)  # four gates: input, recurrence, two biases
    assert count(BiLSTM()) == 2 * per_direction + 2 * 64 + 1
    attention, feedforward, norms = 4 * (64 * 64 + 64), 64 * 128 + 128 + 128 * 64 + 64, 4 * 64
    assert count(Transformer()) == 6 * (attention + feedforward + norms) + 2 * 64 + 64 + 1
    pairs = [(1, 32), (32, 64), (64, 128), (128, 256)]
    convolutions = sum(3 * a * b + 3 * b * b + 4 * b for a, b in pairs)  # weights, their norms, biases
    assert count(TCN()) == convolutions + sum(a * b + b for a, b in pairs) + 256 + 1


def test_tcn_sees_the_past_only_and_as_far_as_its_dilations_say():
    torch.manual_seed(0)
    tcn = TCN().eval()
    x = random(1, 1, 200).requires_grad_()
    (gradient,) = torch.autograd.grad(tcn.body(x)[0, :, 150].abs().sum(), x)
    seen = gradient[0, 0].nonzero()[:, 0]
    reach = 2 * (3 - 1) * (1 + 2 + 4 + 8)
    assert (seen.min(), seen.max()) == (150 - reach, 150)

    changed = x.detach().clone()
    changed[0, 0, 151:] += 100 * random(49, seed=1)
    torch.testing.assert_close(tcn.body(changed)[..., :151], tcn.body(x)[..., :151])


@pytest.mark.parametrize("name", ["transformer", "bilstm", "unet"])
def test_the_others_see_the_future_too(name):
    torch.manual_seed(0)
    module = MODULES[name]().eval()
    x = random(1, 100)
    later = x.clone()
    later[0, 60] += 0.5  # leaves the median and the noise of the window nearly alone
    assert (module(later) - module(x)).abs()[0, 55] > 1e-5


def test_fcn_answers_a_shifted_spike_with_a_shifted_spike():
    torch.manual_seed(0)
    fcn = MODULES["fcn"]().eval()
    x = 0.01 * random(1, 400)
    x[0, 200] += 5.0
    shifted = x.roll(13, dims=1)
    torch.testing.assert_close(fcn(shifted)[:, 150:300], fcn(x).roll(13, dims=1)[:, 150:300], atol=1e-3, rtol=1e-3)


def test_positional_encoding_is_that_of_the_paper():
    encoding = positional_encoding(50, 8)
    assert encoding.shape == (50, 8)
    for position, i in [(0, 0), (7, 0), (7, 2), (49, 3)]:
        angle = torch.tensor(position / 10000 ** (2 * i / 8))
        torch.testing.assert_close(encoding[position, 2 * i], angle.sin())
        torch.testing.assert_close(encoding[position, 2 * i + 1], angle.cos())


def test_unet_says_which_settings_it_cannot_have():
    with pytest.raises(ValueError, match="base_channels must be a multiple of 8, not 10"):
        UNet(FS, base_channels=10)
    with pytest.raises(ValueError, match="kernel_size must be odd, not 4"):
        UNet(FS, kernel_size=4)
