"""The constant in place of a head's z that does the least harm (docs/method.md section 2; Li & Janson 2024).

Harm is the divergence KL(clean || ablated) of the model's next-token distributions, a mean over positions
and prompts. The constant is found by gradient descent on prompts of its own; a step runs only the layers
after the head. It bounds every constant ablation from below: what zero and mean ablation, and an average
over resampling, do beyond it is harm done by an input that the model never sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.decoder import Decoder
from ..model.gradients import GradientReplay, differentiable
from ..model.memory import BatchLimit, attempt
from ..model.products import sum_dtype
from ..vocabulary import Head
from .batches import Progress, check_tokens
from .harm import LayerRecording, draw_positions, mean_divergence, record_layers, with_constant
from .selection import check_heads

# Seeds of the draws: positions of held-out prompts, and prompts and positions of a step.
_HELD_OUT, _STEP = 0, 1


@dataclass(frozen=True)
class Training:
    """How constants are trained.

    steps: at most. prompts, positions: of a step, drawn anew for each; positions per prompt. rate: of Adam,
    without decay, in units of the head's spread (the root mean square of z less its mean), so that it
    suits heads and models of any size. every: steps between two looks at the held-out loss; patience: looks
    without a smaller one after which a head has its constant.

    Li & Janson take 10,000 steps of 3 prompts, rate 0.002, from the mean. A higher rate and a stop by the
    held-out loss lead as far in tens of steps: of SmolLM2-135M's L28H8, whose spread is 0.5, the loss is
    0.00098 nats at the mean, 0.00076 after 100 steps of rate 0.002, 0.00074 after 20 of 0.02 (0.04 times the
    spread), and 0.00071 by L-BFGS to the end.
    """

    steps: int = 100
    prompts: int = 8
    positions: int = 16
    rate: float = 0.04
    every: int = 10
    patience: int = 2


@dataclass
class OptimalConstants:
    """What was found, in the order of the heads given.

    constant: what takes the place of z; loss: its mean KL on the held-out prompts, in nats, and start_loss
    that of the start, the better of mean and zero. steps: of training, until the one that is kept; curve:
    the held-out loss at each look, NaN after the last.
    """

    constant: Float[Tensor, "head d_head"]
    loss: Float[Tensor, " head"]
    start_loss: Float[Tensor, " head"]
    steps: Int[Tensor, " head"]
    curve: Float[Tensor, "head look"]

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return dict(vars(self))


# Adam's own state, in what is saved of a training.
_ADAM = "adam."
# The state of a layer that is not finished: by layer what was saved, and how to save it.
State: TypeAlias = dict[str, Tensor]
Load: TypeAlias = Callable[[int], State | None]
Save: TypeAlias = Callable[[int, State], None]


def optimal_constants(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    held_out: Int[Tensor, "held_prompt length"],
    *,
    heads: Sequence[Head],
    mean_z: Float[Tensor, "layer head d_head"],
    first_position: int = 0,
    seed: int = 0,
    training: Training | None = None,
    chunk: int | None = None,
    load: Load | None = None,
    save: Save | None = None,
    progress: Progress | None = None,
) -> OptimalConstants:
    """Train the constant of each head; heads of one layer side by side, their losses summed.

    Args:
        tokens: prompts to train on; held_out: others, that say when to stop. The last position of each
            is only a target.
        mean_z: the mean over a larger sample, from which the training starts (from zero, that is the value
            bias, where this does less harm on the held-out prompts).
        first_position: z stays as it is before it: at a beginning-of-sequence token.
        chunk: rows (head, prompt) run at once; by default one head's, on a GPU as many as suit it.
        load, save: the state of a layer's training, kept where the caller likes: a training that was cut
            off goes on from the last look at the held-out loss, to the same bits.
        progress: called with the share of the work done since the last call, stopped heads included.
    Raises:
        InputError: tokens that do not fit the model, a head that it does not have, or prompts that do not
            fit into memory.
    """
    training = training or Training()
    known = check_heads(heads, model.n_layers, model.n_heads, name="heads")
    check_tokens(model, tokens)
    check_tokens(model, held_out, name="held-out tokens")
    if not known:
        return no_constants(model.d_head, training)
    replay, found = GradientReplay(model), dict[Head, State]()
    layers = sorted({layer for layer, _ in known}, reverse=True)
    work = {layer: model.n_layers - layer for layer in layers}
    recorded = record_layers(replay, tokens, layers)
    held = record_layers(replay, held_out, layers)
    for layer in layers:
        of_layer = [head for at, head in known if at == layer]
        trained = _LayerTraining(
            replay,
            layer,
            of_layer,
            recorded.pop(layer),
            held.pop(layer),
            mean_z=mean_z[layer, of_layer],
            first_position=first_position,
            seed=seed,
            training=training,
            chunk=chunk,
        )
        share = work[layer] / sum(work.values())
        state = load(layer) if load else None
        for done in trained.run(state, partial(save, layer) if save else None):
            if progress:
                progress(share * done)
        for head, result in zip(of_layer, trained.results(), strict=True):
            found[layer, head] = result
    names = ("constant", "loss", "start_loss", "steps", "curve")
    return OptimalConstants(**{n: torch.stack([found[head][n] for head in known]) for n in names})


class _LayerTraining:
    """The training of the heads of one layer."""

    def __init__(
        self,
        replay: GradientReplay,
        layer: int,
        heads: Sequence[int],
        recorded: LayerRecording,
        held_out: LayerRecording,
        *,
        mean_z: Float[Tensor, "head d_head"],
        first_position: int,
        seed: int,
        training: Training,
        chunk: int | None,
    ) -> None:
        self.replay, self.model, self.layer = replay, replay.decoder, layer
        self.recorded, self.held_out, self.training = recorded, held_out, training
        self.first_position, self.seed = first_position, seed
        device, dtype = self.model.device, sum_dtype(self.model.dtype)
        self.heads = torch.tensor(heads, device=device)
        self.starts = [
            mean_z.to(device, dtype),
            self.model.layers[layer].value_bias[heads].to(dtype),
        ]
        z = recorded.z[:, first_position:, heads].to(dtype)
        self.spread = (z - self.starts[0]).square().mean((0, 1, 3)).sqrt()[:, None]
        self.start = self.starts[0].clone()
        # The way from the start, in units of the spread.
        self.shift = torch.nn.Parameter(torch.zeros_like(self.start))
        self.optimizer = torch.optim.Adam([self.shift], lr=training.rate)
        rows = chunk or (training.prompts if device.type == "cpu" else 2**20)
        self.limit = BatchLimit(rows, what="rows trained at once", device=device)
        looks = -(-training.steps // training.every) + 1
        self.best = self.starts[0].clone()
        self.loss = torch.full((len(heads),), torch.inf, dtype=dtype)
        self.start_loss = self.loss.clone()
        self.curve = torch.full((len(heads), looks), torch.nan, dtype=dtype)
        self.kept_step = torch.zeros(len(heads), dtype=torch.int64)
        self.step = 0
        positions = held_out.residual.shape[1]
        self.held_positions = draw_positions(
            len(held_out.residual),
            positions,
            training.positions,
            first_position=first_position,
            key=(seed, _HELD_OUT),
        ).to(device)

    @property
    def constant(self) -> Float[Tensor, "head d_head"]:
        return self.start + self.spread * self.shift

    def run(self, state: State | None, save: Callable[[State], None] | None) -> Iterator[float]:
        """Train until every head has its constant; yields the share of all steps done since the last time."""
        steps, told = self.training.steps, 0
        with differentiable(self.model):
            if state is None:
                self._start()
            else:
                self._restore(state)
            while self.step < steps and len(heads := self._unfinished()):
                yield (self.step - told) / steps
                told = self.step
                for _ in range(min(self.training.every, steps - self.step)):
                    self._descend(heads)
                    self.step += 1
                self._look(heads)
                if save:
                    save(self._state())
        yield 1 - told / steps

    def results(self) -> Iterator[State]:
        """Of each head what `OptimalConstants` holds, on the CPU."""
        for at in range(len(self.heads)):
            yield {
                "constant": self.best[at].cpu(),
                "loss": self.loss[at],
                "start_loss": self.start_loss[at],
                "steps": self.kept_step[at],
                "curve": self.curve[at],
            }

    def _start(self) -> None:
        """Start each head from the one of mean and zero that does less harm on the held-out prompts."""
        everyone = torch.arange(len(self.heads))
        losses = torch.stack([self._held_out_loss(everyone, start) for start in self.starts])
        better = losses.argmin(0)
        for at, which in enumerate(better.tolist()):
            self.start[at] = self.starts[which][at]
        self.start_loss = losses.amin(0)
        self._note(everyone, self.start_loss, look=0)

    def _unfinished(self) -> Int[Tensor, " at"]:
        """The heads whose held-out loss has become smaller at one of the last looks."""
        waited = self.step - self.kept_step
        return (waited < self.training.every * self.training.patience).nonzero()[:, 0]

    def _look(self, heads: Int[Tensor, " at"]) -> None:
        loss = self._held_out_loss(heads, self.constant.detach())
        self._note(heads, loss, look=-(-self.step // self.training.every))

    def _note(self, heads: Tensor, loss: Tensor, *, look: int) -> None:
        self.curve[heads, look] = loss
        better = heads[loss < self.loss[heads]]
        self.loss[better] = self.curve[better, look]
        self.kept_step[better] = self.step
        self.best[better] = self.constant.detach()[better]

    def _descend(self, heads: Int[Tensor, " at"]) -> None:
        """One step of Adam on prompts and positions drawn for it, the same for all heads."""
        training, positions = self.training, self.recorded.residual.shape[1]
        key = (self.seed, _STEP, self.layer, self.step)
        generator = np.random.default_rng(np.random.SeedSequence(key[0], spawn_key=key[1:]))
        n_prompts = len(self.recorded.residual)
        drawn = generator.choice(n_prompts, min(training.prompts, n_prompts), replace=False)
        at = draw_positions(
            len(drawn),
            positions,
            training.positions,
            first_position=self.first_position,
            key=(*key, 1),
        )
        prompts = torch.from_numpy(drawn).to(self.model.device)
        gradient = torch.zeros_like(self.shift)
        rows = torch.cartesian_prod(heads, torch.arange(len(prompts))).to(self.model.device)

        def of(some: Tensor) -> Tensor:
            losses = self._losses(
                self.recorded,
                some[:, 0],
                prompts[some[:, 1]],
                at.to(some)[some[:, 1]],
                self.constant,
            )
            (found,) = torch.autograd.grad(losses.sum() / len(prompts), self.shift)
            return found

        for found in self._in_pieces(rows, of):
            gradient += found
        self.shift.grad = gradient
        self.optimizer.step()

    @torch.no_grad()
    def _held_out_loss(
        self, heads: Int[Tensor, " at"], constant: Float[Tensor, "head d_head"]
    ) -> Float[Tensor, " at"]:
        count = len(self.held_out.residual)
        rows = torch.cartesian_prod(heads, torch.arange(count)).to(self.model.device)

        def of(some: Tensor) -> Tensor:
            return self._losses(
                self.held_out, some[:, 0], some[:, 1], self.held_positions[some[:, 1]], constant
            )

        losses = torch.cat(list(self._in_pieces(rows, of)))
        return losses.reshape(len(heads), count).mean(1).cpu()

    def _losses(
        self,
        recorded: LayerRecording,
        at: Int[Tensor, " row"],
        prompt: Int[Tensor, " row"],
        position: Int[Tensor, "row drawn"],
        constant: Float[Tensor, "head d_head"],
    ) -> Float[Tensor, " row"]:
        """Mean KL over the drawn positions of each row (a head by its place, in a prompt)."""
        head = self.heads[at]
        z = with_constant(
            recorded.z[prompt, :, head], constant[at], first_position=self.first_position
        )
        final = recorded.final_residual(self.replay, self.layer, prompt, head, z)
        return mean_divergence(self.model, recorded.final[prompt], final, position)

    def _in_pieces(self, rows: Tensor, work: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
        """work(some rows) for all of them, in halves where they do not fit into memory."""
        pending = [*reversed(rows.split(self.limit.size))]
        while pending:
            some = pending.pop()
            found = attempt(partial(work, some)) if len(some) <= self.limit.size else None
            if found is not None:
                yield found
                continue
            if len(some) <= self.limit.size:
                self.limit.halve(len(some), least=1)
            pending += [*reversed(some.split(max(1, self.limit.size)))]

    def _state(self) -> State:
        adam = self.optimizer.state[self.shift]
        return {
            "start": self.start,
            "shift": self.shift.data,
            "best": self.best,
            "loss": self.loss,
            "start_loss": self.start_loss,
            "curve": self.curve,
            "kept_step": self.kept_step,
            "step": torch.tensor(self.step),
            **{f"{_ADAM}{name}": value for name, value in adam.items()},
        }

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        device = self.model.device
        self.start, self.shift.data = state["start"].to(device), state["shift"].to(device)
        self.best, self.step = state["best"].to(device), int(state["step"])
        for name in ("loss", "start_loss", "curve", "kept_step"):
            setattr(self, name, state[name].cpu())
        for name, value in state.items():
            if name.startswith(_ADAM):
                own = value if name == f"{_ADAM}step" else value.to(device)
                self.optimizer.state[self.shift][name.removeprefix(_ADAM)] = own


def no_constants(d_head: int, training: Training) -> OptimalConstants:
    """Of no head."""
    looks = -(-training.steps // training.every) + 1
    nothing = torch.zeros(0)
    return OptimalConstants(
        constant=torch.zeros(0, d_head),
        loss=nothing,
        start_loss=nothing.clone(),
        steps=torch.zeros(0, dtype=torch.int64),
        curve=torch.zeros(0, looks),
    )
