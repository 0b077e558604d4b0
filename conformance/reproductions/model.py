"""A small language model: a transformer that guesses the next character, in PyTorch, of 214 thousand numbers."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

WIDTH, LAYERS, HEADS, CONTEXT = 64, 4, 4, 64


class Block(nn.Module):
    """Attention to what came before, then a network with one hidden layer; each adds to what passes through it."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_network = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.mixed = nn.Linear(WIDTH, WIDTH, bias=False)
        self.hidden = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.out = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Any) -> Any:
        batch, length, _ = x.shape
        parts = self.attention(self.before_attention(x)).view(batch, length, 3, HEADS, WIDTH // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mixed(seen.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.out(functional.relu(self.hidden(self.before_network(x))))


class Model(nn.Module):
    """Characters of a context, as numbers, to scores of the character after each."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.character = nn.Embedding(characters, WIDTH)
        self.place = nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
        self.last = nn.LayerNorm(WIDTH)
        self.scores = nn.Linear(WIDTH, characters, bias=False)

    def forward(self, x: Any) -> Any:
        return self.scores(self.last(self.blocks(self.character(x) + self.place[: x.shape[1]])))


def loss_of(model: Any, windows: Any) -> Any:
    """Mean cross-entropy, in nats a character, of all but the first character of each window."""
    return functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
