"""The fast forward pass: what an ablation at layer l changes, and nothing else.

A clean pass records each decoder layer's input and keyword arguments (masks, rotary tables). An
ablation then adds a change to one layer's attention output and runs that layer's MLP and the layers
after it, for many (head, prompt) rows at once. The layers are the model's own modules, called as the
model calls them; `tests/` compares every architecture with the hooked model, run whole.

A position never sees later ones, and the last has no target, so callers pass tokens without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import InputError
from .arguments import Arguments, for_any_rows, split_stream, with_rows
from .decoder import Decoder, Layer
from .sizes import LENGTH_STEP
from .summing import Parts, Places, Scales, Sums


@dataclass
class Recording:
    """What a clean pass leaves behind, per layer.

    residual: [prompt, position, d_model], the input of each layer and, last, of the final norm;
    z: [prompt, position, head, d_head]; attention_out, mlp_out: [prompt, position, d_model], the raw
    outputs, before any post-norm; attention_scale, mlp_scale: [prompt, position], the scales of those
    post-norms, None where there is none.
    """

    residual: list[Float[Tensor, "prompt position d_model"]] = field(default_factory=list)
    z: list[Float[Tensor, "prompt position head d_head"]] = field(default_factory=list)
    attention_out: list[Float[Tensor, "prompt position d_model"]] = field(default_factory=list)
    mlp_out: list[Float[Tensor, "prompt position d_model"]] = field(default_factory=list)
    attention_scale: list[Float[Tensor, "prompt position"] | None] = field(default_factory=list)
    mlp_scale: list[Float[Tensor, "prompt position"] | None] = field(default_factory=list)

    def scales(self, prompt: Int[Tensor, " row"], length: int) -> Scales:
        """The post-norms' scales in some prompts, up to a length."""

        def cut(scale: Tensor | None) -> Tensor | None:
            return None if scale is None else scale[prompt, :length]

        pairs = zip(self.attention_scale, self.mlp_scale, strict=True)
        return [(cut(of_attention), cut(of_mlp)) for of_attention, of_mlp in pairs]


@dataclass
class Replayed:
    """What a replay gives of each row and position, or of each place looked at.

    residual: final residual; heads, mlps: the summed dot products with the target direction of what
    all replayed attention and MLP outputs add to the stream, at the clean scales of post-norms;
    post_norms: what the changed scales of all post-norms do to these, that of the ablated layer's own
    attention included (docs/method.md section 3; zero in a model without post-norms).
    parts: of which components these consist, if asked for.
    """

    residual: Float[Tensor, "*place d_model"]
    heads: Float[Tensor, "*place"]
    mlps: Float[Tensor, "*place"]
    post_norms: Float[Tensor, "*place"]
    parts: Parts | None = None


class _StopForwardError(Exception):
    """Ends a layer's forward pass where the rest of it is not needed."""


class Replay:
    """Record a decoder's clean pass; replay it from a layer on with a changed attention output."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._arguments: dict[int, list[Arguments]] = {}

    def for_another_thread(self) -> Replay:
        """A replay with modules of its own on the same weights and arguments."""
        other = Replay(self.decoder.for_another_thread())
        other._arguments = self._arguments
        return other

    @torch.no_grad()
    def record(
        self, tokens: Int[Tensor, "prompt position"], *, to_replay: bool = True
    ) -> Recording:
        """Run the model on tokens and keep what later replays start from.

        to_replay: False where nothing will be replayed: what layers are called with is not learnt.
        """
        if to_replay:
            self.learn_arguments_of(tokens.shape[1])
        recording = Recording()
        with self._hooks(self._recording_hooks(recording, tuple(tokens.shape))):
            self._run_network(tokens)
        return recording

    @torch.no_grad()
    def record_z(
        self, tokens: Int[Tensor, "prompt position"]
    ) -> list[Float[Tensor, "prompt position head d_head"]]:
        """z of every layer alone: all that a resample partner gives."""
        found: list[Tensor] = []
        shape = (*tokens.shape, self.decoder.n_heads, -1)

        def attention_input(_: nn.Module, args: tuple[Any, ...]) -> None:
            found.append(args[0].reshape(shape))

        handles = [
            layer.output_projection.register_forward_pre_hook(attention_input)
            for layer in self.decoder.layers
        ]
        with self._hooks(handles):
            self._run_network(tokens)
        return found

    @torch.no_grad()
    def from_layer(
        self,
        layer: int,
        *,
        residual: Float[Tensor, "row position d_model"],
        attention_out: Float[Tensor, "row position d_model"],
        unchanged_out: Float[Tensor, "row position d_model"] | None,
        directions: Float[Tensor, "*place d_model"],
        scales: Scales | None = None,
        places: Places | None = None,
        clean_z: Callable[[int], Tensor] | None = None,
    ) -> Replayed:
        """Replay rows whose attention output at `layer` is `attention_out`.

        Args:
            layer, residual, attention_out, unchanged_out: as for `layer_output`.
            directions: u of each row and position, or of each place (docs/method.md section 1).
            scales: the clean scales of every layer's post-norms in these rows, if the model has any.
            places: where to look at what the replay gives; by default everywhere.
            clean_z: gives the clean z of a layer there, [*place, head, d_head]; with it the result has
                the parts that its sums consist of.
        """
        sums = Sums(
            self.decoder,
            directions,
            shape=residual.shape[:2],
            scales=scales or [(None, None)] * self.decoder.n_layers,
            places=places,
            clean_z=clean_z,
        )
        sums.add_ablated_norm(layer, attention_out)
        with self._hooks(sums.hooks(layer)):
            stream = self.layer_output(
                layer, residual=residual, attention_out=attention_out, unchanged_out=unchanged_out
            )
            for later in range(layer + 1, self.decoder.n_layers):
                stream = self._call(later, stream)
        residual = sums.looked_at(stream)
        return Replayed(residual, sums.heads, sums.mlps, sums.post_norms, sums.parts)

    @torch.no_grad()
    def layer_output(
        self,
        layer: int,
        *,
        residual: Float[Tensor, "row position d_model"],
        attention_out: Float[Tensor, "row position d_model"],
        unchanged_out: Float[Tensor, "row position d_model"] | None,
    ) -> Float[Tensor, "row position d_model"]:
        """The residual stream after a layer whose attention output is given instead of computed.

        Args:
            residual: the layer's clean input.
            unchanged_out: for a parallel layer, its output with the changed attention already added;
                None for a sequential layer, whose MLP is run.
        """
        if unchanged_out is not None:
            return unchanged_out
        return self._call(layer, residual, attention_out=attention_out)

    @torch.no_grad()
    def head_outputs(
        self, layer: int, stream: Float[Tensor, "row position d_model"]
    ) -> Float[Tensor, "row position head d_head"]:
        """z of every head of a layer on a given layer input; the rest of the layer does not run.

        The stream may be shorter than what was recorded: a position never sees later ones.
        """
        projection, seen = self.decoder.layers[layer].output_projection, []

        def stop(_: nn.Module, args: tuple[Any, ...]) -> None:
            seen.append(args[0])
            raise _StopForwardError

        self.learn_arguments_of(stream.shape[1])
        with self._hooks([projection.register_forward_pre_hook(stop)]), suppress(_StopForwardError):
            self._call(layer, stream)
        return seen[0].reshape(*stream.shape[:2], self.decoder.n_heads, -1)

    @torch.no_grad()
    def replay_error(self, clean: Recording, layer: int) -> float:
        """Largest change of the layer's output, in its own units, when it is replayed unchanged: with its
        attention's output given, and with all of it run."""
        before, after = clean.residual[layer : layer + 2]
        try:
            given = self._call(layer, before, attention_out=clean.attention_out[layer])
            outputs = torch.stack([given, self._call(layer, before)])
        except (TypeError, ValueError, IndexError, AttributeError):
            return float("inf")  # the attention module returns something else than it seems to
        return float((outputs - after).abs().max() / after.abs().mean().clamp(min=1.0))

    @torch.no_grad()
    def mlp_reads_attention(self, clean: Recording, layer: int) -> bool:
        """Whether the layer's MLP sees its attention output (False: parallel attention)."""
        residual, attention_out = clean.residual[layer], clean.attention_out[layer]
        noise = torch.linspace(-1, 1, residual.shape[-1]).to(residual)
        outputs = []
        for given in (attention_out, attention_out + residual.abs().mean() * noise):
            seen = Recording()
            with self._hooks(self._recording_hooks(seen, residual.shape[:2])):
                self._call(layer, residual, attention_out=given)
            outputs.append(seen.mlp_out[0])
        return not torch.equal(*outputs)

    @torch.no_grad()
    def learn_arguments_of(self, length: int) -> None:
        """What layers are called with on streams of this length, besides the stream itself.

        Raises:
            InputError: it depends on the tokens, so that a replay would need more than the stream.
        """
        if length in self._arguments:
            return
        decoder = self.decoder
        tokens = torch.arange(2 * length, device=decoder.device).reshape(2, length)
        two_rows = self._arguments_on(tokens % decoder.vocabulary)
        one_row = self._arguments_on(torch.zeros_like(tokens[:1]))
        learnt = []
        for layer, (one, two) in enumerate(zip(one_row, two_rows, strict=True)):
            try:
                learnt.append(for_any_rows(one, two))
            except ValueError as error:
                raise InputError(
                    f"model {decoder.name} ({decoder.architecture}): layer {layer} is given {error} "
                    "besides the residual stream; use a model whose layers read the stream alone"
                ) from error
        self._arguments[length] = learnt

    def _arguments_on(self, tokens: Tensor) -> list[Arguments]:
        collected: list[Arguments] = []

        def layer_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            collected.append(split_stream(args, kwargs)[1:])

        handles = [
            layer.block.register_forward_pre_hook(layer_input, with_kwargs=True)
            for layer in self.decoder.layers
        ]
        with self._hooks(handles):
            self._run_network(tokens)
        return collected

    def _run_network(self, tokens: Tensor) -> None:
        """Everything up to the final norm; the unembedding is not needed."""
        self.decoder.network.base_model(input_ids=tokens, use_cache=False)

    def _call(self, layer: int, stream: Tensor, *, attention_out: Tensor | None = None) -> Tensor:
        """Run one layer on a stream; its attention's output is computed unless it is given."""
        args, kwargs = with_rows(self._arguments[stream.shape[1]][layer], len(stream))
        called = self.decoder.layers[layer]
        if self.decoder.adds_in_place:
            stream = stream.clone()
            attention_out = None if attention_out is None else attention_out.clone()
        if attention_out is None:
            return _first(called.block(stream, *args, **kwargs))
        overridden = called.override_at
        at_projection = overridden is called.output_projection
        output = attention_out if at_projection else (attention_out, None)
        own = overridden.__dict__.get("forward")
        overridden.forward = lambda *_, **__: output
        try:
            return _first(called.block(stream, *args, **kwargs))
        finally:
            del overridden.forward
            if own is not None:
                overridden.forward = own

    @staticmethod
    @contextmanager
    def _hooks(handles: list[RemovableHandle]) -> Iterator[None]:
        """Remove the hooks when the block ends, however it ends."""
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _recording_hooks(
        self, recording: Recording, shape: tuple[int, ...]
    ) -> list[RemovableHandle]:
        n_heads, handles = self.decoder.n_heads, []

        def own(output: Tensor) -> Tensor:
            return output.clone() if self.decoder.adds_in_place else output

        def layer_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            recording.residual.append(own(split_stream(args, kwargs)[0]))

        def hooks_of(layer: Layer) -> list[RemovableHandle]:
            def attention_result(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
                recording.z.append(args[0].reshape(*shape, n_heads, -1))
                raw = own(output).reshape(*shape, -1)
                recording.attention_out.append(raw)
                recording.attention_scale.append(layer.attention_write.scale(raw))

            def mlp_result(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
                raw = own(_first(output)).reshape(*shape, -1)
                recording.mlp_out.append(raw)
                recording.mlp_scale.append(layer.mlp_write.scale(raw))

            return [
                layer.block.register_forward_pre_hook(layer_input, with_kwargs=True),
                layer.output_projection.register_forward_hook(attention_result),
                layer.mlp.register_forward_hook(mlp_result),
            ]

        def norm_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if len(recording.residual) == self.decoder.n_layers:  # NanoChat uses it before, too
                layer_input(_, args, kwargs)

        for layer in self.decoder.layers:
            handles += hooks_of(layer)
        norm = self.decoder.final_norm.module
        return [*handles, norm.register_forward_pre_hook(norm_input, with_kwargs=True)]


def cut_lengths(ends: Int[Tensor, "*batch"], whole: int) -> Int[Tensor, "*batch"]:
    """Lengths to replay that hold all positions before `ends`; there are few different ones."""
    return (-(-ends // LENGTH_STEP) * LENGTH_STEP).clamp(max=whole)


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
