# Single heads and tokens: chosen heads token by token, neurons, and iterative inference.

experiments = config["experiments"]


rule choose_heads:
    input:
        clean=rules.clean_pass.output.tensors,
        beside=found_beside([rules.clean_pass.output.provenance]),
        code=code_of("choose_heads"),
    output:
        f"{RESULTS}/{{model}}/chosen-heads.json",
    log:
        f"{LOGS}/{{model}}/choose_heads.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        named=lambda wildcards: config["models"][wildcards.model].get("chosen_heads"),
        wanted=experiments["heads_per_model"],
        mlps=experiments["mlps"],
    script:
        "../scripts/choose_heads.py"


rule ablate_chosen:
    input:
        prompts=rules.cut_prompts.output[0],
        clean=rules.clean_pass.output.tensors,
        beside=found_beside([rules.clean_pass.output.provenance]),
        heads=rules.choose_heads.output[0],
        precision=precision_of,
        code=code_of("ablate_chosen"),
    output:
        **shard_files("experiments/chosen"),
    log:
        shard_log("experiments/chosen"),
    conda:
        "../envs/selfrepair.yaml"
    threads: threads_of_job(share=2)
    resources:
        gpu=gpus_of_job,
        mem_mb=mem_mb_of_job,
        runtime=runtime_of_job,
    params:
        model=model_params,
        dtype=config["dtype"],
        tf32=config["tf32"],
        prompts=prompts_of_shard("chosen"),
    script:
        "../scripts/ablate_chosen.py"


rule measure_neurons:
    input:
        prompts=rules.cut_prompts.output[0],
        clean=rules.clean_pass.output.tensors,
        beside=found_beside([rules.clean_pass.output.provenance]),
        heads=rules.choose_heads.output[0],
        precision=precision_of,
        code=code_of("measure_neurons"),
    output:
        **shard_files("experiments/neurons"),
    log:
        shard_log("experiments/neurons"),
    conda:
        "../envs/selfrepair.yaml"
    threads: threads_of_job(share=2)
    resources:
        gpu=gpus_of_job,
        mem_mb=mem_mb_of_job,
        runtime=runtime_of_job,
    params:
        model=model_params,
        dtype=config["dtype"],
        tf32=config["tf32"],
        prompts=prompts_of_shard("neurons"),
        total=experiments["prompts"],
    script:
        "../scripts/measure_neurons.py"


rule measure_iterative:
    input:
        prompts=rules.cut_prompts.output[0],
        clean=rules.clean_pass.output.tensors,
        beside=found_beside([rules.clean_pass.output.provenance]),
        precision=precision_of,
        code=code_of("measure_iterative"),
    output:
        **shard_files("experiments/iterative"),
    log:
        shard_log("experiments/iterative"),
    # Longer than the sweeps of few prompts, so before them.
    priority: experiments["iterative_prompts"]
    conda:
        "../envs/selfrepair.yaml"
    threads: threads_of_job(share=2)
    resources:
        gpu=gpus_of_job,
        mem_mb=mem_mb_of_job,
        runtime=runtime_of_job,
    params:
        model=model_params,
        dtype=config["dtype"],
        tf32=config["tf32"],
        prompts=prompts_of_shard("iterative"),
        total=experiments["iterative_prompts"],
        scalings=experiments["scalings"],
        tokens=experiments["tokens_per_head"],
        seed=config["seed"],
    script:
        "../scripts/measure_iterative.py"


rule tabulate_tokens:
    input:
        index=f"{RESULTS}/{{model}}/experiments/chosen.json",
        beside=indexed("experiments", "chosen"),
        code=code_of("tabulate_tokens"),
    output:
        tokens=f"{RESULTS}/{{model}}/tokens.parquet",
        scale_ratios=f"{RESULTS}/{{model}}/scale_ratios.parquet",
        summaries=f"{RESULTS}/{{model}}/token_summaries.parquet",
    log:
        f"{LOGS}/{{model}}/tabulate_tokens.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        title=title_of,
        seed=config["seed"],
        resamples=config["statistics"]["resamples"],
    script:
        "../scripts/tabulate_tokens.py"


rule tabulate_neurons:
    input:
        index=f"{RESULTS}/{{model}}/experiments/neurons.json",
        beside=indexed("experiments", "neurons"),
        code=code_of("tabulate_neurons"),
    output:
        ranks=f"{RESULTS}/{{model}}/neuron_ranks.parquet",
        curve=f"{RESULTS}/{{model}}/neuron_curve.parquet",
        top_neurons=f"{RESULTS}/{{model}}/top_neurons.parquet",
        counts=f"{RESULTS}/{{model}}/neuron_counts.parquet",
        summaries=f"{RESULTS}/{{model}}/neuron_summaries.parquet",
    log:
        f"{LOGS}/{{model}}/tabulate_neurons.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        title=title_of,
        seed=config["seed"],
        resamples=config["statistics"]["resamples"],
    script:
        "../scripts/tabulate_neurons.py"


rule tabulate_iterative:
    input:
        index=f"{RESULTS}/{{model}}/experiments/iterative.json",
        beside=indexed("experiments", "iterative"),
        code=code_of("tabulate_iterative"),
    output:
        self_repression=f"{RESULTS}/{{model}}/self_repression.parquet",
        refeeding=f"{RESULTS}/{{model}}/refeeding.parquet",
        summaries=f"{RESULTS}/{{model}}/iterative_summaries.parquet",
    log:
        f"{LOGS}/{{model}}/tabulate_iterative.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        title=title_of,
        seed=config["seed"],
        resamples=config["statistics"]["resamples"],
    script:
        "../scripts/tabulate_iterative.py"
