"""A slow, obvious reference for every architecture: the plain Hugging Face model with hooks, always run
whole, one head at a time.

It has in common with the fast path what an ablation puts in place of z, which module is which, the weights
of attention outputs and the kind of the final norm. Everything else is computed in another way. What a
post-norm multiplies its input by is read off a clean pass, output divided by input; a component's direct
effect is that, then the final norm with its clean scale frozen, then the whole unembedding, then the mean
over the vocabulary taken off. Constants are those that the model's config states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from ..ablations import ABLATIONS, Baselines
from ..errors import ExactnessError
from ..measure.sweep_result import PER_HEAD, SweepResult
from ..model.decoder import ERROR_BOUNDS, Decoder
from ..vocabulary import ATTENTION_NORM, FINAL_NORM, HEAD, MLP, MLP_NORM, Head, components

Seen = dict[tuple[str, int], Tensor]


@dataclass
class Pass:
    """One forward pass of the whole model.

    residual: the final residual; logits: centred, before a soft cap. Per layer: stream, the block's
    input; z [prompt, position, head, d_head]; attention and mlp, what the two sublayers add to the
    stream; raw_attention and raw_mlp, their outputs before a post-norm and a multiplier; neurons, the
    post-activations of the MLP, None if it has none.
    """

    residual: Tensor
    logits: Tensor
    stream: list[Tensor] = field(default_factory=list)
    z: list[Tensor] = field(default_factory=list)
    raw_attention: list[Tensor] = field(default_factory=list)
    raw_mlp: list[Tensor] = field(default_factory=list)
    attention: list[Tensor] = field(default_factory=list)
    mlp: list[Tensor] = field(default_factory=list)
    neurons: list[Tensor | None] = field(default_factory=list)


class HookedModel:
    """A plain Hugging Face model of its own, loaded from the decoder's files.

    attention: transformers' name of its implementation; by default another than the decoder's.
    """

    def __init__(self, decoder: Decoder, *, attention: str = "eager") -> None:
        self.decoder = decoder
        network: Any = AutoModelForCausalLM.from_pretrained(
            str(decoder.folder), dtype=decoder.dtype, attn_implementation=attention
        )
        self.network = network.to(decoder.device).eval()
        config = self.network.config.get_text_config()
        self.multiplier = getattr(config, "residual_multiplier", 1.0)
        scales = [getattr(config, name, None) or 1.0 for name in ("logit_scale", "logits_scaling")]
        self.logit_factor = scales[0] / scales[1]
        self.cap = getattr(config, "final_logit_softcapping", None)
        self._names = {id(m): name for name, m in decoder.network.named_modules()}

    def named(self, module: nn.Module) -> nn.Module:
        """The module of this model that has the name of one of the decoder's."""
        return self.network.get_submodule(self._names[id(module)])

    @torch.no_grad()
    def run(
        self,
        tokens: Int[Tensor, "prompt length"],
        *,
        z: Sequence[tuple[int, int, Tensor]] = (),
        stream: tuple[int, Tensor] | None = None,
    ) -> Pass:
        """Run the whole model.

        Args:
            z: (layer, head, values [prompt, position, d_head]) of each head whose z they take the place of.
            stream: (layer, values [prompt, position, d_model]) to put in place of the layer's input.
        """
        seen: Seen = {}
        with ExitStack() as hooks:
            for layer, head, values in z:
                changed = self.decoder.layers[layer].output_projection
                self._change(hooks, changed, _put_z(head, values))
            if stream is not None:
                self._change(hooks, self.decoder.layers[stream[0]].block, _put_stream(stream[1]))
            self._keep_all(hooks, seen)
            output = self.network(tokens, use_cache=False).logits
        own = seen["unembedded", 0] * self.logit_factor
        self._check_logits(own, output)
        return self._as_pass(seen, own, tokens)

    def _change(self, hooks: ExitStack, module: nn.Module, hook: Callable[..., Any]) -> None:
        handle = self.named(module).register_forward_pre_hook(hook, with_kwargs=True)
        hooks.callback(handle.remove)

    def _keep_all(self, hooks: ExitStack, seen: Seen) -> None:
        """Keep copies of what every sublayer reads and gives while the hooks last."""

        def keep_input(kind: str, at: int, module: nn.Module) -> None:
            def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
                value = args[0] if args else kwargs["hidden_states"]
                seen[kind, at] = value.clone()

            self._change(hooks, module, hook)

        def keep_output(kind: str, at: int, module: nn.Module) -> None:
            def hook(_: nn.Module, __: Any, output: Any) -> None:
                seen[kind, at] = (output[0] if isinstance(output, tuple) else output).clone()

            hooks.callback(self.named(module).register_forward_hook(hook).remove)

        for at, layer in enumerate(self.decoder.layers):
            keep_input("stream", at, layer.block)
            keep_input("z", at, layer.output_projection)
            keep_output("raw_attention", at, layer.output_projection)
            keep_output("raw_mlp", at, layer.mlp)
            if layer.attention_write.norm is not None:
                keep_output("attention", at, layer.attention_write.norm.module)
            if layer.mlp_write.norm is not None:
                keep_output("mlp", at, layer.mlp_write.norm.module)
            if layer.neurons is not None:
                keep_input("neurons", at, layer.neurons.projection)
        keep_input("residual", 0, self.decoder.final_norm.module)
        keep_output("unembedded", 0, self.decoder.network.get_output_embeddings())

    def _as_pass(self, seen: Seen, logits: Tensor, tokens: Tensor) -> Pass:
        found = Pass(seen["residual", 0], logits - logits.mean(-1, keepdim=True))
        for at in range(self.decoder.n_layers):
            found.stream.append(seen["stream", at])
            found.z.append(seen["z", at].reshape(*tokens.shape, self.decoder.n_heads, -1))
            neurons = seen.get(("neurons", at))
            found.neurons.append(None if neurons is None else neurons.reshape(*tokens.shape, -1))
            for kind in ("attention", "mlp"):
                raw = seen[f"raw_{kind}", at].reshape(*tokens.shape, -1)
                added = seen.get((kind, at), raw * self.multiplier)
                getattr(found, f"raw_{kind}").append(raw)
                getattr(found, kind).append(added.reshape(raw.shape))
        return found

    def _check_logits(self, own: Tensor, output: Tensor) -> None:
        """ExactnessError unless scaling and capping what the unembedding gave is what the model gives."""
        after = own if self.cap is None else self.cap * torch.tanh(own / self.cap)
        error = float((after - output).abs().max())
        if not error <= 0.02 * ERROR_BOUNDS[self.decoder.dtype_name] * max(
            50.0, float(own.abs().max())
        ):
            raise ExactnessError(
                f"model {self.decoder.name}: its logits are {error:.3g} from its scaled and capped "
                "unembedding; name what else its config states here"
            )

    @torch.no_grad()
    def log_probabilities(self, run: Pass) -> Tensor:
        """Of the model's own output, [prompt, position, vocabulary]: after its soft cap, of which centred
        logits do not tell."""
        decoder = self.decoder
        logits = decoder.unembedded(self.named(decoder.final_norm.module)(run.residual))
        return torch.log_softmax(decoder.capped(logits), -1)

    def frozen_logit(self, write: Tensor, clean: Pass, tokens: Tensor) -> Tensor:
        """Centred target logit of what a component adds to the stream, with the clean final norm scale.

        [prompt, position]; the last position has no target and stays NaN.
        """
        norm = self.decoder.final_norm
        residual = clean.residual
        if norm.centred:
            write = write - write.mean(-1, keepdim=True)
            residual = residual - residual.mean(-1, keepdim=True)
        scale = (residual.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
        logits = (norm.gain * write / scale) @ self.decoder.unembedding.T * self.logit_factor
        return _target(logits - logits.mean(-1, keepdim=True), tokens)

    def scale(self, run: Pass) -> Tensor:
        """S of a pass, [prompt, position]."""
        residual, norm = run.residual, self.decoder.final_norm
        if norm.centred:
            residual = residual - residual.mean(-1, keepdim=True)
        return (residual.pow(2).mean(-1) + norm.eps).sqrt()

    def attention_ratio(self, layer: int, clean: Pass) -> Tensor | float:
        """What a part of the raw attention output is multiplied by before it is added, clean scale."""
        if self.decoder.layers[layer].attention_write.norm is None:
            return self.multiplier
        return clean.attention[layer] / clean.raw_attention[layer]

    def mlp_ratio(self, layer: int, clean: Pass) -> Tensor | float:
        """The same of the raw MLP output."""
        if self.decoder.layers[layer].mlp_write.norm is None:
            return self.multiplier
        return clean.mlp[layer] / clean.raw_mlp[layer]

    def head_write(self, layer: int, head: int, run: Pass, clean: Pass) -> Tensor:
        """What a head adds to the stream in a pass, at the clean scale of a post-norm."""
        weights = self.decoder.layers[layer]
        raw = (run.z[layer][..., head, :] - weights.value_bias[head]) @ weights.w_o[head]
        return raw * self.attention_ratio(layer, clean)


@torch.no_grad()
def hooked_sweep(
    hooked: HookedModel,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"] | None = None,
    ablation: str = "resample",
    heads: list[Head] | None = None,
) -> SweepResult:
    """What `selfrepair.sweep` measures, by running the whole model once per head."""
    model = hooked.decoder
    clean = hooked.run(tokens)
    donor = hooked.run(donors) if donors is not None else None
    shape = (*tokens.shape, model.n_layers, model.n_heads)
    every = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    effects = torch.empty(shape, dtype=model.dtype)
    for layer, head in every:
        write = hooked.head_write(layer, head, clean, clean)
        effects[..., layer, head] = hooked.frozen_logit(write, clean, tokens)
    total = _component_total(hooked, clean, tokens, effects)
    own = _target(clean.logits, tokens)
    conservation_error = float((total - own)[:, :-1].abs().max())
    out = {name: torch.full(shape, torch.nan, dtype=model.dtype) for name in PER_HEAD}
    for layer, head in every if heads is None else heads:
        z = replacement(model, layer, ablation, clean, donor)[..., head, :]
        ablated = hooked.run(tokens, z=[(layer, head, z)])
        for name, value in compare_passes(hooked, layer, head, clean, ablated, tokens).items():
            out[name][..., layer, head] = value
        out["ablated_direct_effect"][..., layer, head] += effects[..., layer, head]
    out = {name: value[:, :-1] for name, value in out.items()}
    terms = out["from_heads"] + out["from_mlps"] + out["from_post_norms"] + out["from_norm"]
    return SweepResult(
        direct_effect=effects[:, :-1],
        scale=hooked.scale(clean)[:, :-1],
        conservation_error=conservation_error,
        decomposition_error=float((out["self_repair"] - terms).abs().nan_to_num().max()),
        has_post_norms=model.has_post_norms,
        **out,
    )


def compare_passes(
    hooked: HookedModel, layer: int, head: int, clean: Pass, ablated: Pass, tokens: Tensor
) -> dict[str, Tensor]:
    """Changes between the clean and the ablated pass, [prompt, position], the last position NaN: PER_HEAD by
    name, but for ablated_direct_effect, which is still the change of the ablated head's.

    A term of several components is one logit, of the sum of what they add to the stream.
    """
    model = hooked.decoder

    def effect(write: Tensor) -> Tensor:
        return hooked.frozen_logit(write, clean, tokens)

    def head_change(at: int, which: int) -> Tensor:
        before = hooked.head_write(at, which, clean, clean)
        return hooked.head_write(at, which, ablated, clean) - before

    other_heads = torch.zeros_like(clean.residual)
    mlps, post_norms = torch.zeros_like(other_heads), torch.zeros_like(other_heads)
    for at in range(model.n_layers):
        for other in range(model.n_heads):
            if (at, other) != (layer, head):
                other_heads += head_change(at, other)
        of_attention, of_mlp = hooked.attention_ratio(at, clean), hooked.mlp_ratio(at, clean)
        mlps += (ablated.raw_mlp[at] - clean.raw_mlp[at]) * of_mlp
        post_norms += ablated.attention[at] - ablated.raw_attention[at] * of_attention
        post_norms += ablated.mlp[at] - ablated.raw_mlp[at] * of_mlp
    delta_effect = effect(head_change(layer, head))
    delta_logit = _target(ablated.logits, tokens) - _target(clean.logits, tokens)
    with_own_scale = hooked.frozen_logit(ablated.residual, ablated, tokens)
    return {
        "ablated_direct_effect": delta_effect,
        "delta_logit": delta_logit,
        "self_repair": delta_logit - delta_effect,
        "from_heads": effect(other_heads),
        "from_mlps": effect(mlps),
        "from_post_norms": effect(post_norms),
        "from_norm": with_own_scale - effect(ablated.residual),
        "ablated_scale": hooked.scale(ablated),
    }


@torch.no_grad()
def hooked_map(
    hooked: HookedModel,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"] | None = None,
    ablation: str = "resample",
) -> Float[Tensor, "prompt position layer head component"]:
    """Every component's change of direct effect when a head is ablated, for every head, one at a time.

    The components of `vocabulary.components`; the ablated head's own entry is 0.
    """
    model = hooked.decoder
    clean = hooked.run(tokens)
    donor = hooked.run(donors) if donors is not None else None
    wanted = components(model.n_layers, model.n_heads, post_norms=model.has_post_norms)
    shape = (*tokens.shape, model.n_layers, model.n_heads, len(wanted))
    out = torch.zeros(shape, dtype=model.dtype)
    for layer in range(model.n_layers):
        for head in range(model.n_heads):
            z = replacement(model, layer, ablation, clean, donor)[..., head, :]
            ablated = hooked.run(tokens, z=[(layer, head, z)])
            for place, component in enumerate(wanted):
                if component != (HEAD, layer, head):
                    change = _component_change(hooked, component, clean, ablated, tokens)
                    out[..., layer, head, place] = change
    return out[:, :-1]


def _component_change(
    hooked: HookedModel,
    component: tuple[str, int, int],
    clean: Pass,
    ablated: Pass,
    tokens: Tensor,
) -> Tensor:
    """One component's change of direct effect; of a norm, what its changed scale does."""
    kind, at, head = component
    if kind == FINAL_NORM:
        with_own_scale = hooked.frozen_logit(ablated.residual, ablated, tokens)
        return with_own_scale - hooked.frozen_logit(ablated.residual, clean, tokens)
    if kind == HEAD:
        before = hooked.head_write(at, head, clean, clean)
        change = hooked.head_write(at, head, ablated, clean) - before
    elif kind == MLP:
        change = (ablated.raw_mlp[at] - clean.raw_mlp[at]) * hooked.mlp_ratio(at, clean)
    elif kind == ATTENTION_NORM:
        ratio = hooked.attention_ratio(at, clean)
        change = ablated.attention[at] - ablated.raw_attention[at] * ratio
    else:
        assert kind == MLP_NORM
        change = ablated.mlp[at] - ablated.raw_mlp[at] * hooked.mlp_ratio(at, clean)
    return hooked.frozen_logit(change, clean, tokens)


def _component_total(
    hooked: HookedModel, clean: Pass, tokens: Tensor, effects: Tensor
) -> Float[Tensor, "prompt length"]:
    """All direct effects and the constant b, which a zero residual leaves on the logits."""
    model = hooked.decoder
    nothing = torch.zeros(model.d_model, dtype=model.dtype)
    constant = hooked.named(model.final_norm.module)(nothing) @ model.unembedding.T
    constant = (constant + model.unembedding_bias) * hooked.logit_factor
    constant = (constant - constant.mean()).expand(*tokens.shape, -1)
    total = _target(constant, tokens) + effects.sum((-2, -1))
    total += hooked.frozen_logit(clean.stream[0], clean, tokens)
    for layer, weights in enumerate(model.layers):
        bias = (weights.value_bias[:, None] @ weights.w_o).sum((0, 1)) + weights.b_o
        bias = bias.expand_as(clean.raw_attention[layer]) * hooked.attention_ratio(layer, clean)
        total += hooked.frozen_logit(bias, clean, tokens)
        total += hooked.frozen_logit(clean.mlp[layer], clean, tokens)
    return total


def replacement(
    model: Decoder, layer: int, ablation: str, clean: Pass, donor: Pass | None
) -> Float[Tensor, "prompt length head d_head"]:
    """z' of every head of a layer."""
    z = clean.z[layer]
    given = Baselines(
        z=z,
        value_bias=model.layers[layer].value_bias,
        donor_z=None if donor is None else donor.z[layer],
        mean_z=z.mean((0, 1)),
    )
    return ABLATIONS[ablation].replacement(given).expand_as(z)


def _target(logits: Tensor, tokens: Tensor) -> Tensor:
    """The logit of the next token; the last position has none and stays NaN."""
    out = torch.full(tokens.shape, torch.nan, dtype=logits.dtype)
    out[:, :-1] = logits[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    return out


def _put_z(head: int, values: Tensor) -> Callable[..., tuple[Any, Any]]:
    """A hook that puts values in place of a head's z at the output projection's input."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: Any) -> tuple[Any, Any]:
        whole = args[0].clone()
        heads = whole.reshape(*values.shape[:2], -1, values.shape[-1])
        heads[:, :, head] = values
        return (heads.reshape(whole.shape), *args[1:]), kwargs

    return hook


def _put_stream(values: Tensor) -> Callable[..., tuple[Any, Any]]:
    """A hook that puts values in place of a block's input."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (values, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": values}

    return hook
