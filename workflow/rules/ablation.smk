# The clean pass over the whole sample, and the sweeps that replay it head by head.


rule clean_pass:
    input:
        model=model_files,
        prompts=rules.cut_prompts.output[0],
        code=code_of("clean_pass"),
    output:
        tensors=f"{RESULTS}/{{model}}/clean.safetensors",
        provenance=f"{RESULTS}/{{model}}/clean.json",
    log:
        f"{LOGS}/{{model}}/clean_pass.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: threads_of_job()
    resources:
        gpu=gpus_of_job,
        mem_mb=mem_mb_of_job,
        runtime=runtime_of_job,
    params:
        model=model_params,
        dtype=config["dtype"],
        tf32=config["tf32"],
    script:
        "../scripts/clean_pass.py"


rule measure_precision:
    input:
        model=model_files,
        prompts=rules.cut_prompts.output[0],
        code=code_of("measure_precision"),
    output:
        f"{RESULTS}/{{model}}/precision.json",
    log:
        f"{LOGS}/{{model}}/measure_precision.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: threads_of_job()
    resources:
        gpu=gpus_of_job,
        mem_mb=mem_mb_of_job,
        runtime=runtime_of_job,
    params:
        model=model_params,
        dtype=config["dtype"],
        tf32=config["tf32"],
    script:
        "../scripts/measure_precision.py"


for kind in ABLATIONS:

    rule:
        name:
            f"ablate_{kind}"
        input:
            prompts=rules.cut_prompts.output[0],
            clean=rules.clean_pass.output.tensors,
            beside=found_beside([rules.clean_pass.output.provenance]),
            precision=precision_of,
            code=code_of("ablate"),
        output:
            **shard_files(f"sweeps/{kind}"),
        log:
            shard_log(f"sweeps/{kind}"),
        # The longest first, so that all cores finish together.
        priority: config["ablations"][kind]["prompts"]
        conda:
            "../envs/selfrepair.yaml"
        # Two jobs side by side, each on half the cores: while one loads or writes, the other works.
        # A GPU takes one at a time.
        threads: threads_of_job(share=2)
        resources:
            gpu=gpus_of_job,
            mem_mb=mem_mb_of_job,
            runtime=runtime_of_job,
        params:
            model=model_params,
            dtype=config["dtype"],
            tf32=config["tf32"],
            ablation=kind,
            store=config["sweep"]["store"],
            tokens=config["sweep"]["tokens"],
            total=config["ablations"][kind]["prompts"],
            prompts=prompts_of_shard(kind),
        script:
            "../scripts/ablate.py"


rule gather:
    input:
        shards=shards_of,
        beside=sidecars_of,
        code=code_of("gather"),
    output:
        f"{RESULTS}/{{model}}/{{part}}/{{measurement}}.json",
    log:
        f"{LOGS}/{{model}}/{{part}}/{{measurement}}/gather.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    script:
        "../scripts/gather.py"
