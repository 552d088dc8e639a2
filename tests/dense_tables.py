"""The tables as they were computed from every token's values in memory: the slow reference of sums.

From dense arrays and a mask of selected tokens; nothing of `measure.prompt_sums` or `tables.swept`.
"""

import warnings

import numpy as np
import polars as pl

from selfrepair.tables.bootstrap import interval, mean_over_heads, prompt_weights
from selfrepair.vocabulary import EFFECTS, SHARED_EFFECTS, bounded, depth_groups

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def dense_tables(arrays, selected, *, seed, resamples):
    """Tables of heads and by depth of one ablation and selection, without the keys in front.

    arrays: EFFECTS [prompt, position, layer, head]; selected: tokens to average over, in the same shape.
    n_prompts: prompts that the tokens lie in.
    """
    values = {name: arrays[name].double().numpy() for name in EFFECTS}
    chosen = selected.numpy()
    weights = prompt_weights(len(chosen), resamples, seed=seed)
    means = [_means(values, chosen, weights, layer) for layer in range(chosen.shape[2])]
    heads = [_head_rows(values, chosen, means[layer], layer) for layer in range(chosen.shape[2])]
    return pl.concat(heads), _depth_rows(chosen, means)


def _divide(numerator, denominator):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def _means(values, chosen, weights, layer):
    def mean(each, kept):
        per_prompt = np.where(kept, each, 0.0).sum(1)
        return _divide(weights @ per_prompt, weights @ kept.sum(1))

    here = {name: each[:, :, layer] for name, each in values.items()}
    kept, direct = chosen[:, :, layer], here["direct_effect"]
    means = {name: mean(each, kept) for name, each in here.items()}
    for name in SHARED_EFFECTS:
        clipped = np.clip(_divide(here[name], direct), 0, 1)
        means[f"{name}_share_clipped"] = mean(clipped, kept & (direct != 0))
    means["over_corrected_share"] = mean(here["delta_logit"] > 0, kept & (direct > 0))
    squares = mean(here["self_repair"] ** 2, kept)
    tokens = weights @ kept.sum(1)
    biased = (squares - means["self_repair"] ** 2).clip(0)
    means["self_repair_variance"] = _divide(biased * tokens, tokens - 1)
    return means


def _columns(means, prompts):
    numbers = {name: each for name, each in means.items() if name != "self_repair_variance"}
    for name in SHARED_EFFECTS:
        numbers[f"{name}_share"] = _divide(means[name], means["direct_effect"])
    removed = means["direct_effect"] - means["ablated_direct_effect"]
    numbers["restored_share"] = _divide(means["self_repair"], removed)
    numbers["self_repair_sd"] = np.sqrt(means["self_repair_variance"])
    numbers["self_repair_noise"] = _divide(numbers["self_repair_sd"], np.abs(means["self_repair"]))
    columns = {}
    for name, each in numbers.items():
        columns |= dict(zip(bounded(name), interval(each, prompts=prompts), strict=True))
    return columns


def _head_rows(values, chosen, means, layer):
    kept = chosen[:, :, layer]
    prompts = kept.any(1).sum(0)
    n_heads = kept.shape[2]
    counts = {
        "layer": np.full(n_heads, layer),
        "head": np.arange(n_heads),
        "n_tokens": kept.sum((0, 1)),
        "n_prompts": prompts,
    }
    columns = _columns(means, prompts)
    for name in SHARED_EFFECTS:
        ratio = _divide(values[name][:, :, layer], values["direct_effect"][:, :, layer])
        ratio = np.where(kept, ratio, np.nan).reshape(-1, n_heads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            quantiles = np.nanquantile(ratio, QUANTILES, axis=0)
        for level, each in zip(QUANTILES, quantiles, strict=True):
            columns[f"{name}_share_q{round(100 * level):02d}"] = each
    return pl.DataFrame({name: v.astype(np.int32) for name, v in counts.items()} | columns)


def _depth_rows(chosen, means):
    groups = depth_groups(len(means))
    inside = {name: chosen[:, :, layers].any((2, 3)) for name, layers in groups.items()}
    prompts = np.array([tokens.any(1).sum() for tokens in inside.values()])
    over_heads = {
        name: np.stack(
            [
                mean_over_heads(np.concatenate([means[at][name] for at in layers], 1))
                for layers in groups.values()
            ],
            1,
        )
        for name in means[0]
    }
    counts = {
        "depth": list(groups),
        "n_heads": [len(layers) * chosen.shape[3] for layers in groups.values()],
        "n_tokens": [int(tokens.sum()) for tokens in inside.values()],
        "n_prompts": prompts,
    }
    return pl.DataFrame(counts | _columns(over_heads, prompts))
