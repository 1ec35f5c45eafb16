import torch

from dlvolt.deconvolution import NUM_SHIFTS, shift_bank
from dlvolt.electrodes.learning.sample import undelays


def test_a_smooth_snippet_is_moved_back_to_where_it_was():
    d = torch.arange(80.0)
    snippet = torch.exp(-((d - 40) ** 2) / 50) * torch.sin(d / 4)
    bank = shift_bank(snippet)[:, None]  # J×1×D, delayed by each of the shifts
    torch.testing.assert_close(bank @ undelays(80), bank[NUM_SHIFTS // 2].expand_as(bank), atol=2e-3, rtol=0)


def test_moving_back_is_what_projections_on_delayed_profiles_do():
    snippets, profiles = torch.randn(30, 2, 60), torch.randn(4, 60)
    shifts = torch.randint(NUM_SHIFTS, (30,))
    expected = snippets @ shift_bank(profiles)[shifts].mT
    torch.testing.assert_close(snippets @ undelays(60)[shifts] @ profiles.T, expected, atol=1e-4, rtol=1e-4)
