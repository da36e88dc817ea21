"""The Qwen2 architecture in plain PyTorch, small enough to read, fast enough to train on two cores.

Tensor names are those of Hugging Face's `Qwen2ForCausalLM`, so weights are exchanged without a mapping.
Attention takes any boolean mask, so that many short examples share one row (see `packing`).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.settings import ModelShape

Past = list[Tensor]  # keys and values of one layer so far; empty at first


class RMSNorm(nn.Module):
    """Root-mean-square norm with a gain."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """The normalised input, computed in float32."""
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return (y * self.weight).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of (batch, heads, length, head_dim), halves rotated as in Qwen2."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Attention(nn.Module):
    """Self-attention with biases on queries, keys and values."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.hidden // shape.heads
        self.q_proj = nn.Linear(shape.hidden, shape.heads * self.head_dim)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_heads * self.head_dim)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_heads * self.head_dim)
        self.o_proj = nn.Linear(shape.heads * self.head_dim, shape.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: Past | None = None) -> Tensor:
        """Mixes positions that the mask (batch, 1, length, keys) allows; `past` grows by this call."""
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, self.heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, t, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            if past:
                k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
            past[:] = [k, v]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.down_proj = nn.Linear(shape.ffn, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The gated feed-forward of every position."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One pre-norm block; in training a share `dropout` of what each half adds is dropped."""

    def __init__(self, shape: ModelShape, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.input_layernorm = RMSNorm(shape.hidden, shape.eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.eps)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: Past | None = None) -> Tensor:
        """Attention, then feed-forward, each added to the stream."""
        mixed = self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        x = x + F.dropout(mixed, self.dropout, self.training)
        return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), self.dropout, self.training)


class Body(nn.Module):
    """Embedding, layers, last norm (`model.` in the checkpoint)."""

    def __init__(self, shape: ModelShape, dropout: float) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape, dropout) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden, shape.eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, pasts: list[Past] | None = None) -> Tensor:
        """Hidden states of embedded tokens."""
        for i, layer in enumerate(self.layers):
            x = layer(x, cos, sin, mask, pasts[i] if pasts else None)
        return self.norm(x)


class Qwen2(nn.Module):
    """The whole model; the output matrix is the embedding."""

    def __init__(self, shape: ModelShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.model = Body(shape, dropout)
        head_dim = shape.hidden // shape.heads
        frequencies = 1.0 / shape.rope_theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
        angles = torch.outer(torch.arange(shape.context).float(), frequencies)
        self.register_buffer("cos", torch.cat((angles, angles), -1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat((angles, angles), -1).sin(), persistent=False)
        self.apply(self._init)
        for layer in self.model.layers:  # residual branches start small
            nn.init.normal_(layer.self_attn.o_proj.weight, std=0.02 / (2 * shape.layers) ** 0.5)
            nn.init.normal_(layer.mlp.down_proj.weight, std=0.02 / (2 * shape.layers) ** 0.5)

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def hidden(self, input_ids: Tensor, positions: Tensor, mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Last hidden states (batch, length, hidden) for a boolean mask (batch, 1, length, length)."""
        cos, sin = self.cos[positions][:, None].to(dtype), self.sin[positions][:, None].to(dtype)
        return self.model(self.model.embed_tokens(input_ids).to(dtype), cos, sin, mask)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary for any selection of hidden states."""
        return F.linear(hidden, self.model.embed_tokens.weight.to(hidden.dtype))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of a plain batch of full rows, for evaluation."""
        b, t = input_ids.shape
        positions = torch.arange(t).expand(b, t)
        mask = torch.ones(t, t, dtype=torch.bool).tril().expand(b, 1, t, t)
        return self.logits(self.hidden(input_ids, positions, mask))

    def extend(self, input_ids: list[int], pasts: list[Past]) -> Tensor:
        """Logits after the last of `input_ids`, which follow what `pasts` holds (one list per layer); they grow."""
        start = pasts[0][0].shape[2] if pasts[0] else 0
        positions = torch.arange(start, start + len(input_ids))
        mask = torch.arange(start + len(input_ids)) <= positions[:, None]
        cos, sin = self.cos[positions][None, None], self.sin[positions][None, None]
        hidden = self.model(self.model.embed_tokens(torch.tensor([input_ids])), cos, sin, mask[None, None], pasts)
        return self.logits(hidden[0, -1])
