"""Which module of an architecture holds a hook point.

Block paths and child names follow the Hugging Face modelling files; the meaning of each site follows
TransformerLens. Two rows are traps: Gemma's attention and MLP contributions are read *after* their
post-norms, and GPT-NeoX has no `hook_resid_mid`, since attention and MLP run in parallel there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from steerwidgets.core.hooks import HookPoint

if TYPE_CHECKING:
    from torch import nn

Side = Literal["input", "output"]
_BLOCK: dict[str, tuple[str, Side]] = {"hook_resid_pre": ("", "input"), "hook_resid_post": ("", "output")}


@dataclass(frozen=True)
class Layout:
    """Paths of one architecture: the block list, and each site below a block.

    `adds_positions` says that learned positions are added to the embedding before block 0.
    """

    blocks: str
    sites: Mapping[str, tuple[str, Side]]
    adds_positions: bool = False

    def locate(self, hook: HookPoint, n_layers: int) -> tuple[str, Side]:
        """Module path below the model, and which side of the module the tensor is on.

        Raises:
            ValueError: the layer is beyond the model, or the architecture has no such site.
        """
        if hook.layer >= n_layers:
            raise ValueError(
                f"{hook} does not exist: this model has {n_layers} blocks, blocks.0 to blocks.{n_layers - 1}."
            )
        if hook.site not in self.sites:
            raise ValueError(f"{hook} does not exist in this architecture; it has {', '.join(self.sites)}.")
        child, side = self.sites[hook.site]
        path = f"{self.blocks}.{hook.layer}"
        return (f"{path}.{child}" if child else path), side


_LLAMA = Layout(
    blocks="model.layers",
    sites={
        **_BLOCK,
        "hook_resid_mid": ("post_attention_layernorm", "input"),
        "attn.hook_z": ("self_attn.o_proj", "input"),
        "hook_attn_out": ("self_attn", "output"),
        "hook_mlp_out": ("mlp", "output"),
    },
)
_GEMMA = Layout(
    blocks="model.layers",
    sites={
        **_BLOCK,
        "hook_resid_mid": ("pre_feedforward_layernorm", "input"),
        "attn.hook_z": ("self_attn.o_proj", "input"),
        "hook_attn_out": ("post_attention_layernorm", "output"),
        "hook_mlp_out": ("post_feedforward_layernorm", "output"),
    },
)
_GPT2 = Layout(
    blocks="transformer.h",
    sites={
        **_BLOCK,
        "hook_resid_mid": ("ln_2", "input"),
        "attn.hook_z": ("attn.c_proj", "input"),
        "hook_attn_out": ("attn", "output"),
        "hook_mlp_out": ("mlp", "output"),
    },
    adds_positions=True,
)
_NEOX = Layout(
    blocks="gpt_neox.layers",
    sites={
        **_BLOCK,
        "attn.hook_z": ("attention.dense", "input"),
        "hook_attn_out": ("attention", "output"),
        "hook_mlp_out": ("mlp", "output"),
    },
)
LAYOUTS: dict[str, Layout] = {
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    # From 4B on, Gemma 3 is a model of text and images.
    "gemma3": replace(_GEMMA, blocks="model.language_model.layers"),
    "gpt_neox": _NEOX,
}


def layout_of(module: nn.Module) -> Layout:
    """The layout of a Hugging Face causal language model.

    Raises:
        ValueError: the architecture is not in `LAYOUTS`.
    """
    kind = getattr(getattr(module, "config", None), "model_type", type(module).__name__)
    if kind not in LAYOUTS:
        raise ValueError(
            f"the architecture {kind!r} is not known here; known are {', '.join(LAYOUTS)}. "
            "A new one needs a row in steerwidgets/engine/layouts.py."
        )
    return LAYOUTS[kind]


def blocks(module: nn.Module) -> nn.ModuleList:
    """The list of transformer blocks of a Hugging Face causal language model."""
    found = module.get_submodule(layout_of(module).blocks)
    return found  # type: ignore[return-value]


def check_width(config: Any, hook: HookPoint, width: int, what: str) -> None:
    """Refuse what is not as wide as the tensor at a hook point; `config` is the text model's.

    Raises:
        ValueError: it is for another model. The heads' outputs together need not be as wide as the stream.
    """
    expected, named = config.hidden_size, f"this model has d_model {config.hidden_size}"
    if hook.site == "attn.hook_z":
        heads = config.num_attention_heads
        expected = heads * (getattr(config, "head_dim", None) or expected // heads)
        named = f"at {hook} this model has {expected}, those of its {heads} heads"
    if width != expected:
        raise ValueError(f"{what} has {width} dimensions, but {named}; it was made for another model or hook point.")


def unembedding_path(module: nn.Module) -> str:
    """Dotted path of the unembedding; transformers 5 renamed GPT-NeoX's, so it is looked up, not listed."""
    head = module.get_output_embeddings()  # type: ignore[operator]
    return next(name for name, child in module.named_modules() if child is head)
