# Before a number reaches a table: a few of the first shard of a sweep, measured again by the plain model on the CPU.
# As soon as there is a shard, before the others: a wrong device is found after minutes.
rule check_sweep:
    input:
        model=model_files,
        parts=rules.find_parts.output[0],
        prompts=rules.cut_prompts.output[0],
        shard=first_shards,
        beside=tensors_of_first_shards,
        code=code_of("check_sweep"),
    output:
        f"{RESULTS}/{{model}}/agreement.json",
    log:
        f"{LOGS}/{{model}}/check_sweep.log",
    priority: 1_000_000
    conda:
        "../envs/selfrepair.yaml"
    threads: SHARD_THREADS
    resources:
        mem_mb=mem_mb_of_check,
        runtime=runtime_of_job,
    params:
        settings=settings(*WEIGHTS, "sweep.checked_heads", "seed"),
    script:
        "../scripts/check_sweep.py"
