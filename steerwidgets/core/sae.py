"""A sparse autoencoder as plain tensors: what steering needs of it, in SAELens' names and conventions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Activation = Literal["relu", "jumprelu", "topk"]


@dataclass(frozen=True, eq=False)
class SAE:
    """f = activation((x - b_dec) W_enc + b_enc), x ~ f W_dec + b_dec.

    Args:
        W_enc: [d_model, d_sae].
        b_enc: [d_sae].
        W_dec: [d_sae, d_model], one decoder row a feature.
        b_dec: [d_model].
        hook: the hook point it was trained on, as written there.
        activation: `relu` (SAELens "standard"), `jumprelu` (`threshold` [d_sae], strict >) or `topk` (`k`).
        apply_b_dec_to_input: subtract `b_dec` before encoding (False for Gemma Scope).
        centre_input: subtract each token's mean over d_model before encoding, for SAEs trained on a model
            with `center_writing_weights` (GPT-2 `res-jb`).
        sink_norm: residual norm above which a token is an attention sink that the SAE was not trained on.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    hook: str
    activation: Activation = "relu"
    threshold: Tensor | None = None
    k: int | None = None
    apply_b_dec_to_input: bool = True
    centre_input: bool = False
    sink_norm: float | None = None
    name: str = "SAE"
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.activation not in get_args(Activation):
            raise ValueError(
                f"{self.name}: activation={self.activation!r} is not understood; give one of "
                f"{', '.join(get_args(Activation))}."
            )
        d_sae, d_model = self.W_dec.shape
        wanted = {
            "W_enc": (d_model, d_sae),
            "b_enc": (d_sae,),
            "b_dec": (d_model,),
            **({"threshold": (d_sae,)} if self.activation == "jumprelu" else {}),
        }
        for key, shape in wanted.items():
            tensor = getattr(self, key)
            if tensor is None or tuple(tensor.shape) != shape:
                found = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
                raise ValueError(f"{self.name}: {key} is {found}; W_dec {(d_sae, d_model)} needs {shape}.")
        if self.activation == "topk" and not self.k:
            raise ValueError(f"{self.name}: a topk SAE needs k.")

    def __repr__(self) -> str:
        return f"SAE({self.name!r}, {self.hook}, {self.d_model} to {self.d_sae}, {self.activation})"

    @property
    def d_model(self) -> int:
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    def encode(self, x: Tensor) -> Tensor:
        """Feature activations f of residuals x: [..., d_model] to [..., d_sae], in float32."""
        x = x.to(self.W_enc.dtype)
        if self.centre_input:
            x = x - x.mean(-1, keepdim=True)
        if self.apply_b_dec_to_input:
            x = x - self.b_dec
        pre = x @ self.W_enc + self.b_enc
        f = pre.relu()
        if self.activation == "jumprelu":
            assert self.threshold is not None
            f = f * (pre > self.threshold)
        elif self.activation == "topk":
            assert self.k is not None
            values, ids = f.topk(self.k, dim=-1)
            f = torch.zeros_like(f).scatter(-1, ids, values)
        return f

    def decode(self, f: Tensor) -> Tensor:
        """Residuals of feature *activations* f, `b_dec` included: [..., d_sae] to [..., d_model]."""
        return f @ self.W_dec + self.b_dec

    def decode_direction(self, coefficients: Tensor) -> Tensor:
        """The residual direction of feature *differences*; adds no `b_dec`, which belongs to activations."""
        return coefficients @ self.W_dec

    def sinks(self, x: Tensor) -> Tensor:
        """True where x is an attention sink by its norm, [...]; nowhere if no `sink_norm` is known."""
        if self.sink_norm is None:
            return torch.zeros(x.shape[:-1], dtype=torch.bool, device=x.device)
        return x.norm(dim=-1) > self.sink_norm

    def select(self, ids: Tensor) -> SAE:
        """The same SAE with the features `ids` only; these few rows are all that travels to a remote model.

        Raises:
            ValueError: the activation is `topk`, where a feature's activation depends on all the others.
        """
        if self.activation == "topk":
            raise ValueError("the features of a topk SAE depend on one another; encode with the whole SAE.")
        return replace(
            self,
            W_enc=self.W_enc[:, ids],
            b_enc=self.b_enc[ids],
            W_dec=self.W_dec[ids],
            threshold=None if self.threshold is None else self.threshold[ids],
            metadata={},
        )

    def to(self, device: torch.device | str) -> SAE:
        """The same SAE with its tensors on `device`."""
        tensors: dict[str, Any] = {k: value.to(device) for k, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)

    def check_ids(self, ids: Tensor) -> Tensor:
        """Return feature ids unchanged.

        Raises:
            ValueError: one of them is outside 0 .. d_sae - 1.
        """
        wrong = ids[(ids < 0) | (ids >= self.d_sae)].tolist()
        if wrong:
            raise ValueError(
                f"feature {wrong[0]} is out of range: {self.name} has {self.d_sae} features, 0 to {self.d_sae - 1}."
            )
        return ids
