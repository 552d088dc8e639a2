# Single heads and tokens: chosen heads token by token and under every ablation, neurons, iterative
# inference, and pairs of heads; and every head on a narrow task.


rule choose_heads:
    input:
        clean=rules.rank_tokens.output.tensors,
        beside=found_beside([rules.rank_tokens.output.provenance]),
        code=code_of("choose_heads"),
    output:
        f"{RESULTS}/{{model}}/chosen-heads.json",
    log:
        f"{LOGS}/{{model}}/choose_heads.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(
            "models.{model}.chosen_heads",
            "experiments.heads_per_model",
            "experiments.mlps",
        ),
    script:
        "../scripts/choose_heads.py"


rule ablate_chosen:
    input:
        **clean_run(),
        heads=rules.choose_heads.output[0],
        code=code_of("ablate_chosen"),
    output:
        **shard_files("experiments/chosen"),
    log:
        shard_log("experiments/chosen"),
    conda:
        "../envs/selfrepair.yaml"
    threads: SHARD_THREADS
    resources:
        **MODEL_RESOURCES,
    params:
        prompts=prompts_of_shard("chosen"),
        settings=settings(
            *MODEL_SETTINGS,
            "experiments.prompts",
            "experiments.chosen_tokens_per_head",
            "experiments.chosen_random_tokens_per_head",
            "seed",
        ),
    script:
        "../scripts/ablate_chosen.py"


rule measure_neurons:
    input:
        **clean_run(),
        heads=rules.choose_heads.output[0],
        code=code_of("measure_neurons"),
    output:
        **shard_files("experiments/neurons"),
    log:
        shard_log("experiments/neurons"),
    conda:
        "../envs/selfrepair.yaml"
    threads: SHARD_THREADS
    resources:
        **MODEL_RESOURCES,
    params:
        prompts=prompts_of_shard("neurons"),
        settings=settings(
            *MODEL_SETTINGS,
            "experiments.prompts",
            "experiments.chosen_tokens_per_head",
            "seed",
        ),
    script:
        "../scripts/measure_neurons.py"


rule measure_iterative:
    input:
        **clean_run(),
        code=code_of("measure_iterative"),
    output:
        **shard_files("experiments/iterative"),
    log:
        shard_log("experiments/iterative"),
    # Longer than the sweeps of few prompts, so before them.
    priority: config["experiments"]["iterative_prompts"]
    conda:
        "../envs/selfrepair.yaml"
    threads: SHARD_THREADS
    resources:
        **MODEL_RESOURCES,
    params:
        prompts=prompts_of_shard("iterative"),
        settings=settings(
            *MODEL_SETTINGS,
            "experiments.iterative_prompts",
            "experiments.iterative_tokens_per_head",
            "experiments.scalings",
            "seed",
        ),
    script:
        "../scripts/measure_iterative.py"


# By the map of who repairs; without one, none.
rule choose_pairs:
    input:
        sweeps=expand(
            f"{RESULTS}/{{{{model}}}}/sweeps/{{ablation}}.json", ablation=MAPPED
        ),
        beside=shards_behind("sweeps", *MAPPED),
        code=code_of("choose_pairs"),
    output:
        f"{RESULTS}/{{model}}/chosen-pairs.json",
    log:
        f"{LOGS}/{{model}}/choose_pairs.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings("experiments.pairs", "seed"),
    script:
        "../scripts/choose_pairs.py"


rule ablate_pairs:
    input:
        **clean_run(),
        pairs=rules.choose_pairs.output[0],
        code=code_of("co_ablate"),
    output:
        **shard_files("experiments/pairs"),
    log:
        shard_log("experiments/pairs"),
    conda:
        "../envs/selfrepair.yaml"
    threads: SHARD_THREADS
    resources:
        **MODEL_RESOURCES,
    params:
        prompts=prompts_of_shard("pairs"),
        settings=settings(
            *MODEL_SETTINGS,
            "experiments.pair_prompts",
            "experiments.chosen_tokens_per_head",
            "seed",
        ),
    script:
        "../scripts/co_ablate.py"


# Where no prompts are kept for it, of no head.
rule train_constants:
    input:
        **clean_run(),
        heads=rules.choose_heads.output[0],
        code=code_of("train_constants"),
    output:
        tensors=f"{RESULTS}/{{model}}/constants.safetensors",
        provenance=f"{RESULTS}/{{model}}/constants.json",
    log:
        f"{LOGS}/{{model}}/train_constants.log",
    # Long, and one job: before everything that is short.
    priority: 1000
    conda:
        "../envs/selfrepair.yaml"
    threads: SHARD_THREADS
    resources:
        **MODEL_RESOURCES,
    params:
        settings=settings(
            *MODEL_SETTINGS,
            "experiments.optimal_heads",
            "experiments.optimal_prompts",
            "experiments.optimal_steps",
            "experiments.pair_prompts",
            "seed",
        ),
    script:
        "../scripts/train_constants.py"


rule compare_ablations:
    input:
        **clean_run(),
        constants=rules.train_constants.output.tensors,
        made=found_beside([rules.train_constants.output.provenance]),
        code=code_of("compare_ablations"),
    output:
        **shard_files("experiments/compared"),
    log:
        shard_log("experiments/compared"),
    conda:
        "../envs/selfrepair.yaml"
    threads: SHARD_THREADS
    resources:
        **MODEL_RESOURCES,
    params:
        prompts=prompts_of_shard("compared"),
        settings=settings(
            *MODEL_SETTINGS,
            "experiments.prompts",
            "experiments.chosen_tokens_per_head",
            "seed",
        ),
    script:
        "../scripts/compare_ablations.py"


# Without a row if the task is not possible for the model's tokenizer.
rule write_narrow_prompts:
    input:
        model=model_files,
        code=code_of("write_narrow_prompts"),
    output:
        f"{RESULTS}/{{model}}/narrow_prompts.parquet",
    log:
        f"{LOGS}/{{model}}/write_narrow_prompts.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(*WEIGHTS, "experiments.narrow_prompts", "text.bos", "seed"),
    script:
        "../scripts/write_narrow_prompts.py"


rule ablate_narrow:
    input:
        parts=rules.find_parts.output[0],
        narrow=rules.write_narrow_prompts.output[0],
        precision=precision_report(),
        code=code_of("ablate_narrow"),
    output:
        **shard_files("experiments/narrow"),
    log:
        shard_log("experiments/narrow"),
    conda:
        "../envs/selfrepair.yaml"
    threads: SHARD_THREADS
    resources:
        **MODEL_RESOURCES,
    params:
        prompts=prompts_of_shard("narrow"),
        settings=settings(*MODEL_SETTINGS),
    script:
        "../scripts/ablate_narrow.py"


use rule gather_sweep as gather_experiment with:
    input:
        shards=shards_of_experiment,
        beside=sidecars_of_experiment,
        code=code_of("gather"),
    output:
        f"{RESULTS}/{{model}}/experiments/{{experiment}}.json",
    log:
        f"{LOGS}/{{model}}/experiments/{{experiment}}/gather.log",
    localrule: True  # not inherited
    params:
        settings=settings("experiments.prompts_per_shard"),
