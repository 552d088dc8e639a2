# Tables: self-repair and what it is made of, per head and by depth, and those of the experiments.

# Every table waits for the first shard to be checked: no number of a device that computes something else gets there.

# All that tables depend on besides what was measured.
STATISTICS = ("models.{model}.title", "seed", "statistics.resamples")


rule decompose:
    input:
        sweeps=expand(
            f"{RESULTS}/{{{{model}}}}/sweeps/{{ablation}}.json", ablation=ABLATIONS
        ),
        clean=rules.rank_tokens.output.provenance,
        parts=rules.find_parts.output[0],
        beside=shards_behind("sweeps", *ABLATIONS),
        agreement=rules.check_sweep.output[0],
        code=code_of("decompose"),
    output:
        heads=table("heads"),
        depth=table("depth"),
        provenance=f"{RESULTS}/{{model}}/heads.json",
    log:
        f"{LOGS}/{{model}}/decompose.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(*STATISTICS, "models.{model}.weights", "sweep.heads"),
    script:
        "../scripts/decompose.py"


# For figures over training: what the config states of the model, beside its loss.
rule tabulate_training:
    input:
        clean=rules.rank_tokens.output.provenance,
        agreement=rules.check_sweep.output[0],
        code=code_of("tabulate_training"),
    output:
        training=table("training"),
    log:
        f"{LOGS}/{{model}}/tabulate_training.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings("models.{model}.title", "models.{model}.training_tokens?"),
    script:
        "../scripts/tabulate_training.py"


# Who repairs: of the ablations that have a map; without any, tables without rows.
rule map_repair:
    input:
        sweeps=expand(
            f"{RESULTS}/{{{{model}}}}/sweeps/{{ablation}}.json", ablation=MAPPED
        ),
        beside=shards_behind("sweeps", *MAPPED),
        agreement=rules.check_sweep.output[0],
        code=code_of("map_repair"),
    output:
        **{
            name: table(name)
            for name in ("repair_map", "backup_heads", "repair_layers")
        },
    log:
        f"{LOGS}/{{model}}/map_repair.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings("models.{model}.title"),
    script:
        "../scripts/map_repair.py"


rule tabulate_tokens:
    input:
        index=f"{RESULTS}/{{model}}/experiments/chosen.json",
        beside=shards_behind("experiments", "chosen"),
        agreement=rules.check_sweep.output[0],
        code=code_of("tabulate_tokens"),
    output:
        **experiment_tables("chosen"),
    log:
        f"{LOGS}/{{model}}/tabulate_tokens.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(*STATISTICS),
    script:
        "../scripts/tabulate_tokens.py"


rule tabulate_neurons:
    input:
        index=f"{RESULTS}/{{model}}/experiments/neurons.json",
        beside=shards_behind("experiments", "neurons"),
        agreement=rules.check_sweep.output[0],
        code=code_of("tabulate_neurons"),
    output:
        **experiment_tables("neurons"),
    log:
        f"{LOGS}/{{model}}/tabulate_neurons.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(*STATISTICS),
    script:
        "../scripts/tabulate_neurons.py"


rule tabulate_iterative:
    input:
        index=f"{RESULTS}/{{model}}/experiments/iterative.json",
        beside=shards_behind("experiments", "iterative"),
        agreement=rules.check_sweep.output[0],
        code=code_of("tabulate_iterative"),
    output:
        **experiment_tables("iterative"),
    log:
        f"{LOGS}/{{model}}/tabulate_iterative.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(*STATISTICS),
    script:
        "../scripts/tabulate_iterative.py"


rule tabulate_pairs:
    input:
        index=f"{RESULTS}/{{model}}/experiments/pairs.json",
        beside=shards_behind("experiments", "pairs"),
        agreement=rules.check_sweep.output[0],
        code=code_of("tabulate_pairs"),
    output:
        **experiment_tables("pairs"),
    log:
        f"{LOGS}/{{model}}/tabulate_pairs.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(*STATISTICS),
    script:
        "../scripts/tabulate_pairs.py"


rule tabulate_compared:
    input:
        index=f"{RESULTS}/{{model}}/experiments/compared.json",
        beside=shards_behind("experiments", "compared"),
        agreement=rules.check_sweep.output[0],
        code=code_of("tabulate_compared"),
    output:
        **experiment_tables("compared"),
    log:
        f"{LOGS}/{{model}}/tabulate_compared.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(*STATISTICS),
    script:
        "../scripts/tabulate_compared.py"


# Beside the same heads on the study's text.
rule tabulate_narrow:
    input:
        index=f"{RESULTS}/{{model}}/experiments/narrow.json",
        beside=shards_behind("experiments", "narrow"),
        heads=rules.decompose.output.heads,
        repair_map=rules.map_repair.output.repair_map,
        agreement=rules.check_sweep.output[0],
        code=code_of("tabulate_narrow"),
    output:
        **experiment_tables("narrow"),
    log:
        f"{LOGS}/{{model}}/tabulate_narrow.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(*STATISTICS),
    script:
        "../scripts/tabulate_narrow.py"
