"""The codebook against brute force, and its dead vectors."""

import torch

from scidiff.nn.codebook import Codebook


def made(entries: int, channels: int, generator) -> Codebook:
    book = Codebook(entries, channels).double()
    book.vectors.data = torch.randn(entries, channels, generator=generator, dtype=torch.float64)
    return book


def test_the_nearest_vector_is_that_of_brute_force(generator):
    book = made(37, 5, generator)
    z = torch.randn(3, 5, 7, 4, generator=generator, dtype=torch.float64)
    found = book.index(z)
    for b, i, j in [(b, i, j) for b in range(3) for i in range(7) for j in range(4)]:
        distances = [float((z[b, :, i, j] - e).square().sum()) for e in book.vectors.detach()]
        assert found[b, i, j] == min(range(37), key=distances.__getitem__)
    torch.testing.assert_close(book(z), book.vectors[found].movedim(-1, 1))


def test_far_from_the_origin_nothing_cancels(generator):
    """In single precision, codes and vectors near 10^4 that differ by 1 are told apart."""
    book = made(16, 4, generator)
    z = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)
    near = book.index(z)
    book.vectors.data += 1e4
    book = book.float()
    assert (book.index((z + 1e4).float()) == near).float().mean() > 0.95


def test_gradients_reach_the_codebook_and_not_the_code(generator):
    book = made(9, 2, generator)
    z = torch.randn(4, 2, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    index = book.index(z)
    book(z).sum().backward()
    assert z.grad is None
    counts = torch.bincount(index.flatten(), minlength=9).double()
    torch.testing.assert_close(book.vectors.grad, counts[:, None].expand(9, 2))


def test_dead_vectors_move_to_codes_and_live_ones_stay(generator):
    book = made(6, 2, generator).train()
    book.vectors.data[3:] += 1000
    z = torch.randn(8, 2, 5, generator=generator, dtype=torch.float64)
    before = book.vectors.detach().clone()
    for _ in range(400):
        book(z)
        book.restart()
    used = torch.bincount(book.index(z).flatten(), minlength=6) > 0
    assert book.vectors[3:].abs().max() < 10 and used[3:].all()
    kept = (book.vectors == before).all(1)
    assert kept[:3].any() and not kept[3:].any()
    state = book.vectors.detach().clone()
    book.eval()
    book(z)
    book.restart()  # nothing was seen since: nothing changes
    assert torch.equal(book.vectors, state)


def test_usage_is_a_running_mean_of_the_share(generator):
    book = Codebook(4, 1, memory=0.5)
    book.vectors.data = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    book(torch.tensor([[[0.1, 0.0, -0.2, 0.9]]]))
    book.restart()
    torch.testing.assert_close(book.usage, torch.tensor([2.0, 1.0, 0.5, 0.5]))  # (1 + share * 4) / 2
