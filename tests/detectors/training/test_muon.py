"""Muon: what it moves by is orthogonal, as large as it says, and the same for one weight as for many of its shape."""

import pytest
import torch
from torch import Tensor

from detectors.training.muon import Muon, orthogonal


def weights(*shape: int, count: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    made = [torch.randn(*shape, generator=generator).requires_grad_() for _ in range(count)]
    for weight in made:
        weight.grad = torch.randn(*shape, generator=generator)
    return made


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (32, 32)])
def test_singular_values_become_about_one(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.min() > 0.3
    assert values.max() < 1.3
    assert values.mean() == pytest.approx(0.9, abs=0.15)


def test_nothing_to_learn_moves_nothing() -> None:
    assert orthogonal(torch.zeros(1, 4, 8)).abs().max() == 0


def test_a_step_is_as_large_as_one_of_adamw() -> None:
    (weight,) = weights(32, 16, 3, 3)
    before = weight.detach().clone()
    Muon([weight], lr=0.01).step()
    moved = (weight.detach() - before).square().mean().sqrt().item()
    assert moved == pytest.approx(0.01 * 0.2, rel=0.25)


def test_weights_of_one_shape_do_not_know_of_each_other() -> None:
    together, apart = weights(8, 4, 3, 3, count=3), weights(8, 4, 3, 3, count=3)
    one, others = Muon(together), [Muon([weight]) for weight in apart]
    for _ in range(2):
        one.step()
        for other in others:
            other.step()
    for left, right in zip(together, apart, strict=True):
        assert torch.allclose(left, right, atol=1e-6)


def test_weights_decay_also_where_there_is_nothing_to_learn() -> None:
    (weight,) = weights(4, 4, 3, 3)
    weight.grad = torch.zeros_like(weight)
    before = weight.detach().clone()
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert torch.allclose(weight.detach(), before * 0.95)


def test_it_goes_on_from_its_state_and_from_either_layout() -> None:
    plain, last = weights(8, 8, 3, 3)[0], weights(8, 8, 3, 3)[0].detach().to(memory_format=torch.channels_last)
    last.requires_grad_()
    last.grad = plain.grad.to(memory_format=torch.channels_last) if plain.grad is not None else None
    first = Muon([plain])
    first.step()
    Muon([last]).step()
    assert torch.allclose(plain, last, atol=1e-6)
    second = Muon([last])
    second.load_state_dict(first.state_dict())
    first.step()
    second.step()
    assert torch.allclose(plain, last, atol=1e-6)
